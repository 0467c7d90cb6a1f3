"""Features from files: the oracle's values, whatever the format, the chunks and the partitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.spec import FeatureSpec
from streams import Event, Labels, Pipeline, Rule, Source, compute
from streams.batches import RecordBatch
from streams.decode import decoder_of
from streams.errors import UsageError
from streams.offline.backfill import Backfill
from streams.offline.columns import Places
from streams.offline.files import file_input, inputs_of
from streams.offline.labels import LabelTable
from streams.offline.logged import logged
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from tests.integration.shop import shop, wide_shop
from tests.integration.tape import Tape
from tests.oracles.features import Event as OracleEvent
from tests.oracles.features import features_of
from tests.parity import sides
from tests.parity.compare import pairs
from tests.parity.sides import inputs

HOUR = 3_600_000


class Payment(Event):
    payment: str
    user: int
    amount: float
    tip: float | None
    card: bool
    ts: int
    country: str = "DE"


class Paid(Event):
    payment: str
    paid: bool
    ts: int


payments = Source("payments", Payment, key="user", id="payment", time="ts")
user = payments.by("user")
pipeline = Pipeline(
    "pay",
    score=payments,
    features=[
        payments.field("amount"),
        payments.field("card"),
        payments.category("country", ["DE", "FR"]),
        user.count("1h"),
        user.mean("tip", "1h"),
        user.since_last(),
        compute("double", lambda c: c["amount"] * 2),
    ],
    model="pay",
    labels=Labels("paid", Paid, id="payment", value="paid", within="1h", time="ts"),
)
ROWS = pl.DataFrame(
    {
        "payment": ["a", "b", "c", "d"],
        "user": [7, 8, 7, 7],
        "amount": [1.5, 2.0, 3.25, 4.0],
        "tip": [0.5, None, None, 1.5],
        "card": [True, False, True, False],
        "country": ["DE", "FR", "IT", "DE"],
        "ts": [HOUR, HOUR + 1000, HOUR + 5000, 3 * HOUR],
        "more": ["x", "x", "x", "x"],
    }
)


def written(table: pl.DataFrame, path: Path) -> Path:
    {".parquet": table.write_parquet, ".csv": table.write_csv, ".jsonl": table.write_ndjson}[path.suffix](path)
    return path


def backfilled(
    path: Path, reading: Reading | None = None, of: Pipeline = pipeline, labels: LabelTable | None = None
) -> tuple[pl.DataFrame, list[Reject]]:
    rejects: list[Reject] = []
    given = inputs_of([str(path)], [of.lead.topic], of.lead.topic)
    work = Backfill(of, given, reading or Reading(), rejects.extend, labels)
    frames = [pl.DataFrame(schema=work.schema), *work.frames()]
    return pl.concat(frames), rejects


def by_place(frames: Iterator[pl.DataFrame], spec: FeatureSpec) -> dict[tuple[int, int], dict[str, Any]]:
    found = {}
    for row in pl.concat(frames).iter_rows(named=True):
        found[row["partition"], row["offset"]] = {name: row[f"feature.{name}"] for name in spec.names}
    return found


def assert_the_oracles(found: dict[tuple[int, int], dict[str, Any]], tape: Tape) -> None:
    assert found.keys() == tape.expected.keys()
    for place, expected in tape.expected.items():
        for name, value in expected.items():
            wanted = value if value is None or isinstance(value, str) else float(np.float32(value))
            assert found[place][name] == wanted, (place, name)


def test_every_aggregation_of_files_is_that_of_the_loop(tmp_path: Path) -> None:
    tape = wide_shop(tmp_path, "shop", 300)
    backfill = logged(tape.pipeline, sides.backfill(tape, inputs(tape, tmp_path), tmp_path))
    loop, near = sides.oracle(tape, tmp_path)
    oracle = logged(tape.pipeline, loop)
    found = pairs("shop", tape.pipeline, ("backfill", "oracle"), backfill, oracle, near=pl.scan_parquet(near))
    assert [(pair.kind, pair.rows, pair.ok) for pair in found] == [("exact", 300, True), ("sketch", 300, True)]


@pytest.mark.parametrize("rows", [7, 1000])
def test_two_streams_with_late_events_and_ties_have_the_oracles_features_in_any_chunks(
    tmp_path: Path, rows: int
) -> None:
    tape = shop(tmp_path, "shop", 400)
    work = Backfill(tape.pipeline, inputs(tape, tmp_path), Reading(rows=rows), pytest.fail)
    assert_the_oracles(by_place(work.frames(), tape.pipeline.spec), tape)
    visits = pl.read_parquet(inputs(tape, tmp_path)[tape.topics[1]].paths[0])
    assert not visits["ts"].is_sorted()  # or nothing is decided by the order of arrival
    assert work.events == len(visits) + work.rows


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_row_is_as_of_just_before_its_event_in_every_format(tmp_path: Path, suffix: str) -> None:
    found, rejects = backfilled(written(ROWS, tmp_path / f"p.{suffix}"))
    assert rejects == []
    assert found["id"].to_list() == ["a", "b", "c", "d"]
    assert found["key"].to_list() == ["7", "8", "7", "7"]
    assert found["feature.amount"].to_list() == [1.5, 2.0, 3.25, 4.0]
    assert found["feature.card"].to_list() == [1.0, 0.0, 1.0, 0.0]
    assert found["feature.country"].to_list() == ["DE", "FR", "IT", "DE"]  # raw, as predictions log it
    assert found["feature.user_count_1h"].to_list() == [0.0, 0.0, 1.0, 0.0]
    assert found["feature.user_mean_tip_1h"].to_list() == [None, None, 0.5, None]
    assert found["feature.user_since_last"].to_list() == [None, None, 5.0, 7195.0]
    assert found["feature.double"].to_list() == [3.0, 4.0, 6.5, 8.0]
    assert found["label"].null_count() == 4


def test_a_field_with_a_default_may_be_absent(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        found, _ = backfilled(written(ROWS.drop("country"), tmp_path / f"p.{suffix}"))
        assert found["feature.country"].to_list() == ["DE"] * 4


BAD: list[tuple[str, dict[str, Any], tuple[str, str, str]]] = [
    ("a null where none may be", {"amount": None}, ("decode", "invalid", "amount")),
    ("beyond float32", {"amount": 1e300}, ("decode", "out_of_range", "amount")),
    ("before 1970", {"ts": -5}, ("time", "negative", "ts")),
    ("beyond 2**53 ms", {"ts": 2**60}, ("time", "out_of_range", "ts")),
    ("too long an id", {"payment": "x" * 1025}, ("key", "too_long", "payment")),
    ("too long a category", {"country": "x" * 1025}, ("key", "too_long", "country")),
]


@pytest.mark.parametrize(("change", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_bad_row_is_rejected_as_the_streams_decoder_rejects_it(
    tmp_path: Path, change: dict[str, Any], expected: tuple[str, str, str], suffix: str
) -> None:
    ((name, value),) = change.items()
    second = pl.when(pl.col("payment") == "b")
    bad = ROWS.with_columns(second.then(pl.lit(value, dtype=ROWS.schema[name])).otherwise(pl.col(name)).alias(name))
    found, (reject,) = backfilled(written(bad, tmp_path / f"p.{suffix}"))
    assert (reject.stage, reject.code, reject.field, reject.row) == (*expected, 2)
    assert found["id"].to_list() == ["a", "c", "d"]
    (dead,) = decoder_of(payments, 0, pipeline.spec).decode(records(bad)).dead
    assert (dead.stage, dead.code, dead.field) == expected


RULED = Source(
    "payments",
    Payment,
    key="user",
    id="payment",
    time="ts",
    rules=[
        Rule("amount", le=3, on_violation="dead_letter"),
        Rule("country", among=["DE", "FR"], on_violation="dead_letter"),
        Rule("tip", not_null=True, on_violation="dead_letter"),
        Rule("card", ge=1),  # flagged alone
        Rule("ts", behind="1h", on_violation="dead_letter"),
    ],
)
"""Of which no feature reads the country or the tip."""
ruled = Pipeline("pay", score=RULED, features=[RULED.by("user").sum("amount", "1h")], model="pay")


def assert_rejected_as_on_the_stream(rejects: list[Reject], table: pl.DataFrame, timestamps: list[int]) -> None:
    batch = replace(records(table), timestamps=np.array(timestamps))
    dead = decoder_of(RULED, 0, ruled.spec).decode(batch).dead
    expected = [(d.offset + 1, d.stage, d.code, d.reason, d.field) for d in dead]
    assert [(r.row, r.stage, r.code, r.reason, r.field) for r in rejects] == expected


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_an_event_that_a_rule_of_its_source_keeps_out_of_the_stream_is_kept_out(tmp_path: Path, suffix: str) -> None:
    table = ROWS.with_columns(tip=pl.Series([0.5, None, 0.0, 1.5]))
    found, rejects = backfilled(written(table, tmp_path / f"p.{suffix}"), of=ruled)
    assert found["id"].to_list() == ["a"]
    assert [(r.row, r.code, r.field) for r in rejects] == [
        (2, "not_null", "tip"), (3, "le", "amount"), (4, "le", "amount"),
    ]  # fmt: skip
    assert rejects[1].reason == "amount must be at most 3, and is 3.25; country must be one of 'DE', 'FR', and is 'IT'"
    assert_rejected_as_on_the_stream(rejects, table, ROWS["ts"].to_list())


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_what_such_events_held_is_no_part_of_any_feature(tmp_path: Path, suffix: str) -> None:
    table = ROWS.with_columns(amount=pl.Series([1.0, 2.0, 30.0, 2.5]), tip=pl.lit(1.0), country=pl.lit("FR"))
    table = table.with_columns(ts=pl.Series([HOUR, HOUR + 1, HOUR + 2, HOUR + 3]))
    found, _ = backfilled(written(table, tmp_path / f"p.{suffix}"), of=ruled)
    assert found.select("id", "feature.user_sum_amount_1h").rows() == [("a", 0.0), ("b", 0.0), ("d", 1.0)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_how_far_an_event_may_be_behind_is_judged_where_the_file_has_timestamps(tmp_path: Path, suffix: str) -> None:
    table = ROWS.with_columns(amount=pl.lit(1.0), tip=pl.lit(1.0), country=pl.lit("FR"))
    timestamps = [HOUR, 2 * HOUR + 2000, 2 * HOUR, 3 * HOUR]
    timed = table.with_columns(_timestamp=pl.Series(timestamps))
    found, (reject,) = backfilled(written(timed, tmp_path / f"p.{suffix}"), of=ruled)
    assert found["id"].to_list() == ["a", "c", "d"]
    assert (reject.row, reject.code, reject.field) == (2, "behind", "ts")
    assert_rejected_as_on_the_stream([reject], table, timestamps)
    found, rejects = backfilled(written(table, tmp_path / f"q.{suffix}"), of=ruled)
    assert (len(found), rejects) == (4, [])


class Numbered(Event):
    payment: int
    user: int
    amount: float
    ts: int


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("read_by", ["nothing", "a rule", "a feature"])
def test_integers_name_events_and_keys_as_on_the_stream_whatever_else_reads_them(
    tmp_path: Path, suffix: str, read_by: str
) -> None:
    rules = [Rule("payment", ge=0, on_violation="dead_letter"), Rule("user", ge=0)] if read_by == "a rule" else []
    source = Source("payments", Numbered, key="user", id="payment", time="ts", rules=rules)
    features = [source.field("payment"), source.field("user")] if read_by == "a feature" else [source.field("amount")]
    of = Pipeline("pay", score=source, features=features, model="pay")
    table = pl.DataFrame({"payment": [2**53, 2**53 + 1, 3], "user": [2**53 + 1, 8, 9], "amount": 1.0, "ts": [1, 2, 3]})
    found, _ = backfilled(written(table, tmp_path / f"p.{suffix}"), of=of)
    decoded = decoder_of(source, 0, of.spec).decode(records(table))
    assert found["id"].to_list() == decoded.ids == [str(2**53), str(2**53 + 1), "3"]
    assert found["key"].to_list() == [str(2**53 + 1), "8", "9"]
    if read_by == "a feature":
        assert found["feature.payment"].to_list() == decoded.fields["payment"].astype(np.float32).tolist()


def records(table: pl.DataFrame) -> RecordBatch:
    values: list[bytes | None] = [line.encode() for line in table.write_ndjson().splitlines()]
    n = len(values)
    offsets = np.arange(n, dtype=np.int64)
    return RecordBatch(0, 0, [b"7"] * n, values, offsets, np.full(n, 2**61), None, 0, 0)


def test_text_that_is_no_number_is_rejected_with_the_text(tmp_path: Path) -> None:
    amounts, cards = pl.Series(["1.5", "two", "nan", "inf"]), pl.Series(["true", "FALSE", "1", "true"])
    bad = ROWS.with_columns(amount=amounts, card=cards)
    found, rejects = backfilled(written(bad, tmp_path / "p.csv"))
    assert found["id"].to_list() == ["a"]
    assert [(r.row, r.code, r.field) for r in rejects] == [
        (2, "invalid", "amount"), (3, "malformed", "amount"), (4, "malformed", "amount"),
    ]  # fmt: skip
    assert rejects[0].reason == "Expected `float`, got 'two'"
    assert json.loads(rejects[0].value)["payment"] == "b"


def test_nan_is_null_where_null_may_be_and_infinity_nowhere(tmp_path: Path) -> None:
    table = ROWS.with_columns(tip=pl.Series([0.5, float("nan"), float("inf"), 1.5]))
    found, (reject,) = backfilled(written(table, tmp_path / "p.parquet"))
    assert found["id"].to_list() == ["a", "b", "d"]
    assert (reject.code, reject.field) == ("malformed", "tip")


def test_whole_numbers_may_be_kept_as_floats_and_the_time_as_a_datetime(tmp_path: Path) -> None:
    table = ROWS.with_columns(pl.col("user").cast(pl.Float64), pl.from_epoch("ts", time_unit="ms"))
    found, _ = backfilled(written(table, tmp_path / "p.parquet"))
    expected, _ = backfilled(written(ROWS, tmp_path / "q.parquet"))
    assert found.equals(expected)
    broken = ROWS.with_columns(user=pl.Series([7.0, 8.5, 7.0, 7.0]))
    _, (reject,) = backfilled(written(broken, tmp_path / "r.parquet"))
    assert (reject.code, reject.field, reject.reason) == ("invalid", "user", "Expected `int`, got 8.5")


def test_an_event_far_ahead_of_its_records_timestamp_is_rejected(tmp_path: Path) -> None:
    table = ROWS.with_columns(_timestamp=pl.Series([HOUR, HOUR, HOUR, HOUR]))
    for suffix in ("parquet", "csv", "jsonl"):
        found, (reject,) = backfilled(written(table, tmp_path / f"p.{suffix}"))
        assert found["id"].to_list() == ["a", "b", "c"]
        assert (reject.stage, reject.code, reject.field) == ("time", "ahead", "ts")


def test_an_event_types_own_rules_hold_for_columns_too(tmp_path: Path) -> None:
    class Small(Payment):
        def __post_init__(self) -> None:
            if self.amount > 3.5:
                raise ValueError("too much")

    small = Source("payments", Small, key="user", id="payment", time="ts")
    of = Pipeline("small", score=small, features=[small.by("user").count("1h")], model="m")
    for suffix in ("parquet", "jsonl"):
        found, (reject,) = backfilled(written(ROWS, tmp_path / f"p.{suffix}"), of=of)
        assert found["id"].to_list() == ["a", "b", "c"]
        assert (reject.code, "too much" in reject.reason) == ("invalid", True)


def test_labels_join_by_id_if_they_came_in_time(tmp_path: Path) -> None:
    paid = pl.DataFrame(
        {"payment": ["a", "a", "b", "z"], "paid": [True, False, True, True], "ts": [HOUR + 9, HOUR + 10, 9 * HOUR, 5]}
    )
    rejects: list[Reject] = []
    assert pipeline.labels is not None
    files = file_input("paid", str(written(paid, tmp_path / "l.csv")), "--input")
    table = LabelTable(pipeline.labels, files, Reading(), rejects.extend)
    found, _ = backfilled(written(ROWS, tmp_path / "p.parquet"), labels=table)
    assert found["label"].to_list() == [1.0, None, None, None]  # the first of two; b's came after `within`
    assert found["label_time"].to_list() == [HOUR + 9, None, None, None]
    assert (table.rows, rejects) == (3, [])


@pytest.mark.parametrize(
    ("table", "reading", "message"),
    [
        (ROWS.drop("amount"), Reading(), "there is no column 'amount'; it has payment, user"),
        (ROWS.cast({"amount": pl.String}), Reading(), "column 'amount' is String, the event says float"),
        (ROWS.with_columns(_offset=pl.Series([5, 4, 6, 7])), Reading(), "offsets do not rise in partition 0"),
        (ROWS, Reading(Places("at"), frozenset({"at"})), "there is no column 'at'"),
        (ROWS, Reading(sort="when"), "--sort when: .* has no such column"),
    ],
)
def test_what_no_row_can_mend_is_wrong_use(tmp_path: Path, table: pl.DataFrame, reading: Reading, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backfilled(written(table, tmp_path / "p.parquet"), reading)


def test_a_file_out_of_order_can_be_sorted_first(tmp_path: Path) -> None:
    shuffled = written(ROWS.reverse(), tmp_path / "p.parquet")
    expected, _ = backfilled(written(ROWS, tmp_path / "q.parquet"))
    found, _ = backfilled(shuffled, Reading(sort="ts"))
    assert found.equals(expected)
    assert not backfilled(shuffled)[0].sort("id").equals(expected)


def test_files_that_are_not_there_or_of_no_source_are_wrong_use(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "p.parquet")
    (tmp_path / "p.txt").write_text("")
    for text, message in (
        (f"payment={path}", "reads no 'payment'; did you mean 'payments'"),
        (str(path), "say which stream it is"),
        (f"payments={tmp_path}/gone.parquet", "there is no such file"),
        (f"payments={tmp_path}/*.csv", "there is no such file"),
        (f"payments={tmp_path}/p.txt", "what it holds is told by its end"),
    ):
        with pytest.raises(UsageError, match=message):
            inputs_of([text], ["payments", "paid"])
    with pytest.raises(UsageError, match="no files of payments"):
        Backfill(pipeline, {}, Reading(), pytest.fail)
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"broken.parquet cannot be read"):
        backfilled(tmp_path / "broken.parquet")


def test_several_files_are_one_stream_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    for day in range(2):
        written(ROWS.slice(2 * day, 2), folder / f"day-{day}.parquet")
    expected, _ = backfilled(written(ROWS, tmp_path / "p.parquet"))
    for files in (str(folder), str(folder / "*.parquet")):
        assert backfilled(Path(files))[0].equals(expected)


class Sale(Event):
    sale: str
    user: str
    shop: str | None
    city: str
    amount: float
    ts: int


sales = Source("sales", Sale, key="user", id="sale", time="ts")
shops, cities = sales.by("shop"), sales.by("city", "shop", exact=True)
grouped = Pipeline(
    "grouped",
    score=sales,
    features=[
        sales.by("user").count("1h"),
        shops.count("1h"),
        shops.mean("amount", "1h"),
        cities.last("amount", name="last_there"),
        compute("of_usual", lambda c: c["amount"] / c["shop_mean_amount_1h"], uses=[shops.mean("amount", "1h")]),
    ],
    model="grouped",
)


def some_sales(n: int) -> pl.DataFrame:
    """In the order of time, no two at once."""
    draw = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "sale": [f"s{i}" for i in range(n)],
            "user": [f"u{u}" for u in draw.integers(0, 30, n)],
            "shop": [None if s == 0 else f"shop{s}" for s in draw.integers(0, 7, n)],
            "city": draw.choice(["Bern", "Chur"], n),
            "amount": draw.lognormal(3, 1, n).round(2),
            "ts": (HOUR + np.cumsum(draw.integers(1, 60_000, n))),
        }
    )


@pytest.mark.parametrize("rows", [65_536, 64])
def test_features_of_remote_groups_are_of_all_events_before_by_time_whatever_the_chunks(
    tmp_path: Path, rows: int
) -> None:
    n = 500
    table = some_sales(n)
    found, rejects = backfilled(written(table, tmp_path / "sales.parquet"), Reading(rows=rows), grouped)
    assert not rejects
    events = [OracleEvent(0, row["ts"], i, 0, row) for i, row in enumerate(table.iter_rows(named=True))]
    kept = replace(grouped.spec, features=grouped.spec.features[1:4], given=frozenset())
    of_sale = {row["id"]: row for row in found.iter_rows(named=True)}
    assert of_sale.keys() == set(table["sale"])
    for event, wanted in zip(events, features_of(kept, events), strict=True):
        row = of_sale[event.fields["sale"]]
        for name, value in wanted.items():
            assert row[f"feature.{name}"] == (None if value is None else float(np.float32(value))), (event, name)
        usual = wanted["shop_mean_amount_1h"]
        of_usual = None if usual is None else pytest.approx(event.fields["amount"] / usual, rel=1e-6)
        assert row["feature.of_usual"] == of_usual
    assert found["feature.shop_count_1h"].n_unique() > 5
    assert found["feature.last_there"].null_count() < n / 2


def test_equal_times_of_a_remote_group_go_by_partition_and_offset(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "sale": ["b", "a", "c"],
            "user": ["u1", "u2", "u1"],
            "shop": ["x"] * 3,
            "city": ["Bern"] * 3,
            "amount": [1.0, 2.0, 3.0],
            "ts": [HOUR] * 3,
            "_partition": [1, 0, 1],
            "_offset": [0, 0, 1],
        }
    )
    found, _ = backfilled(written(table, tmp_path / "sales.parquet"), of=grouped)
    assert dict(zip(found["id"], found["feature.last_there"], strict=True)) == {"a": None, "b": 2.0, "c": 1.0}
