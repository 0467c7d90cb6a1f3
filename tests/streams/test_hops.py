"""Events on their way through the parts of a pipeline, without Kafka.

Whatever the order in which they meet, each has the features that a plain loop gives.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.arrivals import scored_fields, scored_records
from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.partitioner import partition_of
from features.store import Meta
from monitors.metrics import Metrics
from streams import Event as Declared
from streams import Pipeline, Source, compute
from streams.batches import RecordBatch
from streams.decode import decoder_of
from streams.hop import beginning, unframed, with_origin
from streams.lane import Take
from streams.parts import Part, parts_of
from streams.rounds import ScoredRows, Work, assemble
from streams.sending_on import SendingOn
from tests.oracles.features import Event, features_of, kept_alone

PARTITIONS = 3
T0 = 1_700_000_000_000
Log = dict[int, list[tuple[bytes | None, bytes]]]
"""Records of a topic by partition: key and value."""


class Payment(Declared):
    user: str
    shop: str | None
    device: int
    amount: float
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")
USER, SHOP = PAYMENTS.by("user"), PAYMENTS.by("shop", exact=True)
DEVICE = PAYMENTS.by("device", "shop", exact=True)
PIPELINE = Pipeline(
    "fraud",
    score=PAYMENTS,
    features=[
        DEVICE.count("10m"),
        USER.sum("amount", "30m"),
        SHOP.mean("amount", "30m"),
        PAYMENTS.field("amount"),
        SHOP.last("amount"),
        compute("sum", lambda c: c["amount"] + c["user_count_10m"], uses=[USER.count("10m")]),
    ],
    model="fraud",
)


class Worker:
    """A part's own code between a poll and what goes out."""

    def __init__(self, part: Part) -> None:
        self.part, self.spec = part, part.pipeline.spec
        self.engine = FeatureEngine(self.spec, MemoryStore())
        for partition in range(PARTITIONS):
            self.engine.own(partition, Meta(1, 1, self.spec.state_hash, (0,)), empty=True)
        self.decoder = decoder_of(part.pipeline.lead, 0, self.spec)
        self.onward = SendingOn(part, Metrics())
        self.next = dict.fromkeys(range(PARTITIONS), 0)

    async def take(self, partition: int, records: list[tuple[bytes | None, bytes]]) -> tuple[ScoredRows, Any, Any]:
        """Rows, their aggregates or features, and the records for the next part."""
        n, first = len(records), self.next[partition]
        self.next[partition] += n
        keys, values = [key for key, _ in records], [value for _, value in records]
        offsets, stamps = np.arange(first, first + n), np.full(n, T0)
        raw = RecordBatch(0, partition, keys, list(values), offsets, stamps, None, 0, 1)
        batch, origin, dead = beginning(raw) if self.part.group is None else unframed(raw, self.part.carried)
        decoded = with_origin(self.decoder.decode(batch), batch, origin, dead)
        assert not decoded.dead
        work = assemble([Take(partition, [[decoded]], [[]], [np.arange(n)], [], {})], 1)
        await self.engine.load(work.columns)
        return self._computed(work)

    def _computed(self, work: Work) -> tuple[ScoredRows, Any, Any]:
        rows, fields = work.rows, scored_fields(self.spec, work.columns, scored_records(work.columns))
        if not self.part.scores:
            aggregates = self.engine.fold(work.columns).aggregates
            (sent,) = self.onward.records(rows, fields, aggregates, None)
            return rows, None, list(zip(sent.keys, sent.values, strict=True))
        assert rows.origin is not None
        carried = {name: rows.origin.carried[:, place] for place, name in enumerate(self.part.carried)}
        return rows, self.engine.process(work.columns, carried).logged, None


def in_pieces(log: Log, draw: Any) -> list[tuple[int, list[tuple[bytes | None, bytes]]]]:
    """A log as polls might bring it: partitions in any turn, their records in order."""
    left = {partition: list(records) for partition, records in log.items() if records}
    found = []
    while left:
        partition = draw.choice(sorted(left))
        size = draw.randint(1, len(left[partition]))
        found.append((partition, left[partition][:size]))
        left[partition] = left[partition][size:]
        if not left[partition]:
            del left[partition]
    return found


payments = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["u1", "u2", "u3", "u4"]),
            "shop": st.sampled_from(["s1", "s2", "", None]),
            "device": st.integers(1, 3),
            "amount": st.floats(0, 1000),
            "ts": st.integers(T0 - 7_200_000, T0),
        }
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(payments, st.randoms())
async def test_each_event_has_the_values_of_a_loop_over_every_topic_that_it_went_through(
    events: list[dict[str, Any]], draw: Any
) -> None:
    parts = parts_of(PIPELINE)
    log: Log = {partition: [] for partition in range(PARTITIONS)}
    for event in events:
        key = event["user"].encode()
        log[partition_of(key, PARTITIONS, "crc32")].append((key, json.dumps(event).encode()))
    source = [(p, i, json.loads(value)) for p, mine in log.items() for i, (_, value) in enumerate(mine)]
    expected: dict[tuple[int, int], dict[str, Any]] = {(p, i): {} for p, i, _ in source}
    by_loop(expected, parts[0], {p: [((p, i), e) for q, i, e in source if q == p] for p in log})
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for part in parts:
        worker, after = Worker(part), {partition: [] for partition in range(PARTITIONS)}
        order: dict[int, list[Any]] = {partition: [] for partition in range(PARTITIONS)}
        for partition, records in in_pieces(log, draw):
            rows, logged, sent = await worker.take(partition, records)
            places = list(zip(rows.partitions.tolist(), rows.offsets.tolist(), strict=True))
            order[partition] += [(place, next(e for p, i, e in source if (p, i) == place)) for place in places]
            for key, value in sent or ():
                after[partition_of(key, PARTITIONS, "crc32")].append((key, value))
            for row, place in enumerate(places) if logged is not None else ():
                assert place not in found
                found[place] = {name: column[row] for name, column in logged.items()}
        if part.group is not None:
            by_loop(expected, part, order)
        log = after
    assert found.keys() == expected.keys()
    amounts = {(p, i): event["amount"] for p, i, event in source}
    for place, features in found.items():
        wanted = {**expected[place], "amount": amounts[place]}
        count = wanted.pop("user_count_10m")  # None: it came too late for the window
        wanted["sum"] = None if count is None else amounts[place] + count
        for name, value in features.items():
            want = wanted[name]
            assert np.isnan(value) if want is None else value == np.float32(want), (place, name)


def by_loop(expected: dict[tuple[int, int], dict[str, Any]], part: Part, order: dict[int, list[Any]]) -> None:
    """Adds what a loop over a part's topic gives for the aggregates that it keeps."""
    for partition, mine in order.items():
        seen = [Event(0, event["ts"], i, partition, event) for i, (_, event) in enumerate(mine)]
        for (place, _), values in zip(mine, features_of(kept_alone(part.pipeline.spec), seen), strict=True):
            expected[place] |= values
