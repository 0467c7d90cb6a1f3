"""The events of the flights example, against the data set's own rows."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest

from examples.flights.data import (
    FLIGHTS,
    STREAMS,
    DataMissing,
    Flights,
    data_folder,
    month_start,
    parse_months,
)
from examples.flights.events import CARRIERS, DESTINATIONS, ORIGINS, Request
from examples.flights.pipeline import pipeline

HOUR = 3_600_000
MINUTE = 60_000


@pytest.fixture(scope="module")
def flights() -> Flights:
    return Flights()


@pytest.fixture(scope="module")
def january() -> list[tuple[int, int, dict[str, object]]]:
    """(time, stream, fields) of all events of January, in order."""
    return [(e.time, e.stream, json.loads(e.value)) for e in Flights(1, 1).events()]


def test_every_flight_is_asked_about_and_those_that_flew_depart_and_arrive(flights: Flights) -> None:
    assert flights.counts == (FLIGHTS, 328_521, 327_346)


def test_ids_are_unique(flights: Flights) -> None:
    assert flights._frames[0]["id"].n_unique() == FLIGHTS


def test_events_come_by_time_then_stream_then_id(january: list[tuple[int, int, dict[str, object]]]) -> None:
    places = [(time, stream, fields["id"]) for time, stream, fields in january]
    assert places == sorted(places)


def test_every_event_is_one_of_its_stream(january: list[tuple[int, int, dict[str, object]]]) -> None:
    for time, stream, fields in january:
        event = msgspec.convert(fields, STREAMS[stream], strict=True)
        assert event.time == time
        assert set(fields) == {f.name for f in msgspec.structs.fields(STREAMS[stream])}


def test_the_first_flight_is_asked_about_leaves_and_arrives_when_it_did(
    january: list[tuple[int, int, dict[str, object]]],
) -> None:
    # UA 1545 from EWR to IAH: scheduled 5:15, left 2 minutes late, flew 227 minutes, arrived 11 minutes late.
    scheduled = month_start(1) + 5 * HOUR + 15 * MINUTE
    found = {stream: (time, fields) for time, stream, fields in january if fields["id"] == "20130101-UA1545-EWR"}
    assert found[0][0] == scheduled - 2 * HOUR
    assert found[1][0] == scheduled + 2 * MINUTE
    assert found[2][0] == scheduled + (2 + 227 + 20) * MINUTE
    asked = msgspec.convert(found[0][1], Request)
    assert (asked.origin, asked.carrier, asked.dest, asked.tailnum) == ("EWR", "UA", "IAH", "N14228")
    assert (asked.hour, asked.weekday, asked.distance) == (5, 2, 1400.0)
    assert found[1][1]["dep_delay"] == 2
    assert found[2][1]["arr_delay"] == 11
    # Asked at 3:15: the hour from 2 to 3 is the last that was over.
    assert (asked.temp, asked.humid, asked.pressure) == (39.02, 61.63, 1012.3)


def test_nobody_is_asked_before_what_he_is_asked_about_is_known(flights: Flights) -> None:
    """A request precedes its flight's departure, and that its arrival."""
    asked, left, arrived = flights._frames
    together = asked.join(left, on="id", suffix="_left")
    assert (together["time"] < together["time_left"]).all()
    together = left.join(arrived, on="id", suffix="_arrived")
    assert together.height == arrived.height
    assert (together["time"] < together["time_arrived"]).all()


def test_months_are_those_of_the_request(january: list[tuple[int, int, dict[str, object]]]) -> None:
    requests = [time for time, stream, _ in january if stream == 0]
    assert month_start(1) <= min(requests)
    assert max(requests) < month_start(2)
    counts = Counter(stream for _, stream, _ in january)
    assert tuple(counts[s] for s in range(3)) == Flights(1, 1).counts
    assert Flights(1, 2).requests_before(month_start(2)) == counts[0]


def test_the_pipelines_categories_are_those_of_the_data(flights: Flights) -> None:
    requests = flights._frames[0]
    for column, values in (("origin", ORIGINS), ("carrier", CARRIERS), ("dest", DESTINATIONS)):
        assert sorted(requests[column].unique().to_list()) == sorted(values)


def test_the_pipeline_declares_what_the_topics_carry() -> None:
    assert [source.event for source in pipeline.sources] == list(STREAMS)
    assert {source.key for source in pipeline.sources} == {"origin"}
    assert len(pipeline.spec.names) == 31


@pytest.mark.parametrize(("text", "months"), [("1-12", (1, 12)), ("3", (3, 3)), ("2-4", (2, 4))])
def test_months_are_a_range_or_one(text: str, months: tuple[int, int]) -> None:
    assert parse_months(text) == months


@pytest.mark.parametrize("text", ["", "0-3", "4-2", "1-13", "x", "1-", "-1", "1-2-3", "1.5"])
def test_anything_else_is_no_range_of_months(text: str) -> None:
    with pytest.raises(ValueError, match=r"months|write first-last"):
        parse_months(text)


def test_without_the_data_set_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataMissing, match=r"pip install 'weir\[demo\]'"):
        data_folder()
