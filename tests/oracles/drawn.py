"""What hypothesis draws: declarations of aggregates over two streams, and events with ties, gaps and late ones."""

from __future__ import annotations

from hypothesis import strategies as st

from features.aggregations import OPS
from features.condition import Condition
from features.spec import Aggregate, FeatureSpec, Field, Op, Stream, Vocabulary
from features.windows import HOUR_MS, MINUTE_MS, AnyWindow, Forever, LastEvents, Window
from tests.oracles.features import Event

SCORED = Stream(
    "requests",
    (
        Field("user", "string", nullable=True),
        Field("shop", "number", nullable=True),
        Field("amount", "number"),
        Field("tip", "number", nullable=True),
    ),
)
OTHER = Stream(
    "visits",
    (Field("user", "string"), Field("shop", "number", nullable=True), Field("tip", "number", nullable=True)),
)
# Panes: 2.5 min, 5 min (1h and 3h share their banks), 1 h. Times step by a pane or so, or jump within 60 h,
# in whole minutes: ties, gaps longer than a window, events out of order and events too late all happen.
WINDOWS = ("30m", "1h", "3h", "12h")


@st.composite
def specs(draw: st.DrawFn) -> FeatureSpec:
    aggregates: dict[str, Aggregate] = {}
    for _ in range(draw(st.integers(1, 8))):
        stream = draw(st.sampled_from((0, 0, 1)))
        entity = draw(st.sampled_from((("user",), ("user",), ("shop",), ("shop", "user"))))
        op: Op = draw(st.sampled_from(("count", "sum", "mean", "min", "max", "last", "since_last")))
        field = None if op in ("count", "since_last") else "tip"
        if field and stream == 0:
            field = draw(st.sampled_from(("amount", "tip")))
        window = None if op in ("last", "since_last") else Window.parse(draw(st.sampled_from(WINDOWS)))
        within = None if window else draw(st.sampled_from((30 * MINUTE_MS, 20 * HOUR_MS)))
        name = f"{stream}_{'_'.join(entity)}_{op}_{field}_{window.text if window else within}"
        aggregates[name] = Aggregate(name, stream, entity, op, field, window, within)
    return FeatureSpec((SCORED, OTHER), tuple(aggregates.values()))


NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False), st.integers(-5, 5).map(float), st.sampled_from((1e300, 1e-300))
)
TIPS = st.one_of(NUMBERS, st.just(float("nan")))


@st.composite
def arrivals(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    following: dict[tuple[int, int], int] = {}
    minutes = 0
    for _ in range(draw(st.integers(0, 40))):
        stream, partition = draw(st.sampled_from((0, 0, 1))), draw(st.integers(0, 1))
        if draw(st.integers(0, 3)):
            minutes += draw(st.sampled_from((0, 1, 5, 30, 55, 60, 180, 660, -1, -30, -60)))
        else:
            minutes = draw(st.one_of(st.integers(0, 240), st.integers(0, 3600)))
        fields = {
            "user": draw(st.sampled_from(("ann", "bob") if stream else ("ann", "bob", None))),
            "shop": draw(st.sampled_from((7.0, 8.0, float("nan")))),
            "tip": draw(TIPS),
        }
        if stream == 0:
            fields["amount"] = draw(NUMBERS)
        offset = following.get((stream, partition), 0)
        following[stream, partition] = offset + 1
        scored = draw(st.integers(0, 9)) > 0
        events.append(Event(stream, minutes * MINUTE_MS, offset, partition, fields, scored))
    return events


# Of the aggregations that draw squares, weights and bins: few values, all of them small.
FEW = st.sampled_from((0.0, 1.0, 2.5, -3.0, 7.0, 1000.0, float("nan")))
PLENTY = st.sampled_from((0.0, 1.0, -2.0, 31.5))
CONDITIONS = ("tip > 0", "tip < 3 and amount > 0", "user == 'ann' or not tip >= 1", "tip is None", "user in ['bob']")


@st.composite
def any_aggregates(draw: st.DrawFn) -> FeatureSpec:
    """Declarations of every aggregation, over every window, some of them counting only some events."""
    aggregates: dict[str, Aggregate] = {}
    for _ in range(draw(st.integers(1, 8))):
        op: Op = draw(st.sampled_from(sorted(OPS)))  # type: ignore[arg-type]
        rule = OPS[op]
        field = None if rule.takes == "nothing" else draw(st.sampled_from(("amount", "tip")))
        if rule.takes in ("any", "code") and draw(st.booleans()):
            field = "user"
        decayed = "decayed" in rule.parts
        window: AnyWindow | None = None
        if rule.shape not in ("lag", "latest") and not decayed:
            choices: list[AnyWindow] = [Window.parse(text) for text in WINDOWS]
            if rule.shape != "rate":
                choices += [Forever(), LastEvents(1), LastEvents(3)]
            window = draw(st.sampled_from(choices))
        where = draw(st.sampled_from((None, *map(Condition.parse, CONDITIONS))))
        if isinstance(window, LastEvents) and op == "count" and where is None:
            continue
        within = None if isinstance(window, Window) else draw(st.sampled_from((30 * MINUTE_MS, 20 * HOUR_MS)))
        encoding = Vocabulary(("bob",)) if op == "most_frequent" and field == "user" else None
        param = {"quantile": 500_000, "lag": draw(st.integers(1, 4))}.get(op, HOUR_MS if decayed else 0)
        entity = draw(st.sampled_from((("user",), ("shop",))))
        name = f"a{len(aggregates)}_{op}"
        aggregates[name] = Aggregate(name, 0, entity, op, field, window, within, where, encoding, param)
    return FeatureSpec((SCORED, OTHER), tuple(aggregates.values()))


@st.composite
def few_values(draw: st.DrawFn) -> list[Event]:
    """Arrivals whose amounts and tips are few and small."""
    events = draw(arrivals())
    return [
        event._replace(
            fields={
                name: draw(FEW) if name == "tip" else draw(PLENTY) if name == "amount" else value
                for name, value in event.fields.items()
            }
        )
        for event in events
    ]
