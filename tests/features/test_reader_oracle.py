"""The reader against the engine: a reading is what an event at that time would have got, of whatever is declared."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.memory_store import MemoryStore
from features.reader import FieldValue, StateReader
from features.readings import STATES
from features.spec import FeatureSpec
from features.store import Meta
from features.windows import MINUTE_MS
from tests.features.rounds import DictStore, owning, run, vector
from tests.oracles.drawn import any_aggregates, few_values
from tests.oracles.features import Event

ENTITY: dict[str, FieldValue] = {"user": "ann", "shop": 7.0}


async def stored(spec: FeatureSpec, events: list[Event]) -> MemoryStore:
    """What a worker of one partition leaves."""
    engine, store = owning(spec, DictStore(), partitions=1), MemoryStore()
    await run(engine, [events])
    epoch, _ = await store.claim(0, 1)
    meta = Meta(epoch, epoch, spec.state_hash, (0, 0))
    await store.begin(0, meta)
    for copy in engine.snapshot({0: vector(spec, events, 0)}):
        await store.write(0, meta, copy.vector, copy.rows())
    return store


@given(any_aggregates(), few_values(), st.integers(-90, 3000))
@settings(max_examples=150, deadline=None)
async def test_a_reading_is_what_an_event_at_that_time_would_get(
    spec: FeatureSpec, drawn: list[Event], after_minutes: int
) -> None:
    if not spec.features:
        return
    offsets = [0, 0]
    events = []
    for event in drawn:
        events.append(event._replace(partition=0, offset=offsets[event.stream]))
        offsets[event.stream] += 1
    time = max((event.time for event in events), default=0) + after_minutes * MINUTE_MS
    reader = StateReader(spec, await stored(spec, events), key="user", partitions=1, floats={"shop"})
    entity = {name: ENTITY[name] for fields in spec.entities for name in fields}
    found = await reader.read([entity], time)
    asked = Event(0, time, offsets[0], 0, {**ENTITY, "amount": 0.0, "tip": 0.0})
    wanted = (await run(owning(spec, DictStore(), partitions=1), [[*events, asked]]))[-1]
    np.testing.assert_array_equal(found.values[0], wanted)
    # A year later all has passed, and nothing is said to be present.
    later = await reader.read([entity], time + 500 * 24 * 60 * MINUTE_MS)
    assert {STATES[state] for state in later.states[0]} <= {"expired", "missing"}
    assert not np.nan_to_num(later.values).any()
