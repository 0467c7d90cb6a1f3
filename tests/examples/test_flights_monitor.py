"""The monitor beside an embedded broker: reads, joins, archives, and says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from examples.flights.pipeline import pipeline
from monitors.join import Joined
from monitors.join_store import JoinStoreAway
from monitors.metrics import Metrics
from monitors.predictions import Prediction
from streams.embedded import Embedded, start_embedded
from streams.errors import WeirError
from streams.loop_outputs import CommitFailed
from streams.loop_state import feature_kinds
from streams.monitor import Monitor, monitor_group
from streams.settings import load_settings

HOUR = 3_600_000
START = 1_356_998_400_000


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    with start_embedded(tmp_path / "data") as pair:
        yield pair


class Rig:
    """A monitor of the flights pipeline, and a producer that plays the worker and the world."""

    def __init__(self, broker: str, redis_url: str, folder: Path) -> None:
        self.broker, self.redis_url, self.folder = broker, redis_url, folder
        self.metrics = Metrics()
        self.seen: list[Prediction] = []
        self.joined: list[Joined] = []
        self.monitor = Monitor(
            pipeline,
            load_settings(broker="embedded", redis="embedded"),
            broker,
            redis_url,
            folder,
            metrics=self.metrics,
            on_predictions=self.seen.extend,
            on_joined=self.joined.extend,
            commit_ms=10,
            persist_s=0.02,
        )
        assert self.monitor.connect()
        self._producer = Producer({"bootstrap.servers": broker})
        self.send(pipeline.lead.topic, None)  # the scored topic exists

    def predict(self, name: str, offset: int, hour: int = 0, partition: int = 0, score: float | None = 0.5) -> None:
        value = {
            "id": name,
            "key": "JFK",
            "time": START + hour * HOUR,
            "source": {"topic": pipeline.lead.topic, "partition": partition, "offset": offset},
            **dict.fromkeys(("model", "version", "arm", "deployment")),
            "score": score,
            "shadows": {},
            "features": {"carrier": "B6", "hour": 7.0},
        }
        self.send(pipeline.topics.predictions, msgspec.json.encode(value), partition)

    def label(self, name: str, delay: float, hour: int = 5, partition: int = 0) -> None:
        value = {"id": name, "origin": "JFK", "carrier": "B6", "dest": "BOS", "tailnum": None}
        encoded = msgspec.json.encode({**value, "arr_delay": delay, "time": START + hour * HOUR})
        self.send("flights.arrivals", encoded, partition)

    def send(self, topic: str, value: bytes | None, partition: int = 0) -> None:
        self._producer.produce(topic, value, b"JFK", partition)

    def until(self, done: Callable[[], bool]) -> None:
        self._producer.flush(10)
        deadline = time.monotonic() + 15
        while not done():
            assert time.monotonic() < deadline, "it did not come about in time"
            self.monitor.poll(0.02)

    def committed(self, topic: str, partition: int = 0) -> int:
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": monitor_group(pipeline)})
        found = consumer.committed([TopicPartition(topic, partition)], timeout=10)[0].offset
        consumer.close()
        return found


@pytest.fixture
def rig(embedded: Embedded, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(embedded.broker, embedded.redis_url, tmp_path / "archive")
    yield made
    made.monitor.close()


def test_a_prediction_and_its_label_become_a_row_of_the_archive(rig: Rig) -> None:
    rig.predict("a", 3)
    rig.predict("b", 4, score=None)
    rig.label("a", 16.0)
    rig.label("b", 15.0)
    rig.until(lambda: len(rig.joined) == 2)
    rig.monitor.close()
    frame = pl.read_parquet(rig.folder / "*.parquet").sort("id")
    assert frame["label"].to_list() == [1.0, 0.0]  # more than 15 minutes is late
    assert frame["score"].to_list() == [0.5, None]
    assert frame["feature.carrier"].to_list() == ["B6", "B6"]
    assert frame["feature.hour"].to_list() == [7.0, 7.0]
    assert frame["feature.temp"].null_count() == 2
    assert [c.removeprefix("feature.") for c in frame.columns if c.startswith("feature.")] == list(pipeline.spec.names)
    assert (rig.monitor.predictions, rig.monitor.unscored, rig.monitor.counts.matched) == (2, 1, 2)


def test_a_record_predicted_twice_counts_once_and_is_known_as_a_duplicate(rig: Rig) -> None:
    rig.predict("a", 3)
    rig.predict("a", 3)
    rig.predict("a", 4)
    rig.until(lambda: rig.monitor.predictions + rig.monitor.duplicates == 3)
    assert (rig.monitor.predictions, rig.monitor.duplicates) == (2, 1)
    assert [p.source.offset for p in rig.seen] == [3, 4]
    assert rig.metrics.value("weir_monitor_predictions_total", result="duplicate") == 1


def test_it_commits_how_far_the_scored_topic_has_been_dealt_with(rig: Rig) -> None:
    rig.predict("a", 41, partition=2)
    rig.predict("b", 40, partition=2)
    rig.until(lambda: rig.monitor.predictions == 2)
    rig.monitor.close()
    assert rig.committed(pipeline.lead.topic, 2) == 42
    assert rig.committed(pipeline.topics.predictions, 2) == 2


def test_the_next_monitor_goes_on_where_the_last_one_stood(rig: Rig, tmp_path: Path) -> None:
    rig.predict("a", 0)
    rig.until(lambda: rig.monitor.predictions == 1)
    rig.monitor.close()
    following = Rig(rig.broker, rig.redis_url, tmp_path / "archive")
    following.predict("b", 1)
    following.until(lambda: following.monitor.predictions == 1)
    assert [p.id for p in following.seen] == ["b"]
    following.monitor.close()


def test_a_killed_monitor_loses_no_row_that_was_joined(rig: Rig, tmp_path: Path) -> None:
    rig.predict("a", 7)
    rig.label("a", 20.0)
    rig.until(lambda: len(rig.joined) == 1 and rig.committed(pipeline.topics.predictions) == 1)
    # The first one has not archived, and never says good-bye.
    following = Rig(rig.broker, rig.redis_url, tmp_path / "archive")
    following.monitor.flush()
    rows = pl.read_parquet(following.folder / "*.parquet")
    assert (rows["id"].to_list(), rows["label"].to_list()) == (["a"], [1.0])
    assert following.joined == []  # it was told of before
    following.monitor.close()
    third = Rig(rig.broker, rig.redis_url, tmp_path / "archive")
    third.monitor.close(finished=True)
    assert pl.read_parquet(third.folder / "*.parquet")["id"].to_list() == ["a"]


def test_a_label_meets_a_prediction_that_an_earlier_monitor_read(rig: Rig, tmp_path: Path) -> None:
    rig.predict("a", 7)
    rig.until(lambda: rig.committed(pipeline.topics.predictions) == 1)
    following = Rig(rig.broker, rig.redis_url, tmp_path / "archive")
    following.label("a", 20.0)
    following.until(lambda: len(following.joined) == 1)
    assert following.joined[0].prediction.source.offset == 7
    following.monitor.close()


def test_records_that_are_neither_labels_nor_predictions_are_passed_over(rig: Rig) -> None:
    rig.send("flights.arrivals", b"{")
    rig.send("flights.arrivals", None)  # a watermark
    rig.send(pipeline.topics.predictions, b"not a prediction")
    rig.send(pipeline.topics.dead_letters, b"whatever")
    rig.predict("a", 0)
    rig.label("a", 20.0)
    rig.until(lambda: len(rig.joined) == 1 and rig.monitor.dead_letters == 1)
    assert rig.metrics.value("weir_monitor_labels_total", result="invalid") == 1


def test_of_labels_that_contradict_each_other_the_first_counts(rig: Rig) -> None:
    rig.predict("a", 0)
    rig.label("a", 20.0)
    rig.label("a", 5.0, hour=6)
    rig.label("a", 30.0, hour=7)
    rig.until(lambda: rig.monitor.counts.duplicate == 2)
    assert [row.label.value for row in rig.joined if row.label] == [1.0]
    assert rig.monitor.counts.conflicting == 1


def test_a_label_for_an_unknown_id_is_counted_once_predictions_have_passed_it(rig: Rig) -> None:
    rig.label("nobody asked", 20.0)
    rig.predict("later", 0, hour=100)
    rig.until(lambda: rig.monitor.counts.unmatched == 1)


def test_a_full_disk_holds_the_monitor_until_there_is_room(rig: Rig) -> None:
    rig.folder.write_text("a file where the archive should be")
    rig.predict("a", 0)
    rig.label("a", 20.0)
    rig.until(lambda: len(rig.joined) == 1)
    rig.monitor.flush()
    assert rig.monitor.held
    rig.predict("b", 1)
    for _ in range(3):
        rig.monitor.poll(0.02)
    assert rig.monitor.predictions == 1  # nothing is read meanwhile
    rig.folder.unlink()
    rig.until(lambda: rig.monitor.predictions == 2)
    assert not rig.monitor.held
    assert pl.read_parquet(rig.folder / "*.parquet")["id"].to_list() == ["a"]


def test_a_prediction_is_given_up_when_labels_have_passed_its_time(rig: Rig) -> None:
    rig.predict("a", 0)
    rig.predict("later", 1, hour=100)
    rig.label("later", 0.0, hour=101)
    rig.until(lambda: len(rig.joined) == 2)
    assert {row.prediction.id: row.label is None for row in rig.joined} == {"a": True, "later": False}
    assert rig.monitor.counts.missing == 1


def test_at_the_end_predictions_without_a_label_are_archived_too(rig: Rig) -> None:
    rig.predict("a", 0)
    rig.until(lambda: rig.monitor.predictions == 1)
    rig.monitor.close(finished=True)
    assert pl.read_parquet(rig.folder / "*.parquet")["label"].to_list() == [None]


def test_the_kinds_of_features_are_those_of_the_spec() -> None:
    kinds = feature_kinds(pipeline)
    assert list(kinds) == list(pipeline.spec.names)
    assert [name for name, kind in kinds.items() if kind == "category"] == ["carrier", "origin", "dest"]


def test_a_monitor_that_begins_again_waits_for_redis(
    rig: Rig, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.predict("a", 0)
    rig.until(lambda: rig.committed(pipeline.topics.predictions) == 1)

    def fail(*_: object) -> None:
        raise CommitFailed("the coordinator has gone")

    def away(*_: object) -> None:
        raise JoinStoreAway("it does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(rig.monitor._outputs, "commit", fail)
        broken.setattr(rig.monitor._store, "load", away)
        rig.predict("b", 1)
        rig.until(lambda: bool(rig.monitor.held))
        rig.monitor.flush()  # nothing is known that it could commit
        assert rig.monitor.poll(0.02) == 0
    rig.label("b", 20.0)
    rig.until(lambda: len(rig.joined) == 1)
    assert not rig.monitor.held
    assert rig.joined[0].prediction.id == "b"


def test_a_monitor_whose_place_was_taken_ends_and_leaves_what_the_other_one_wrote(rig: Rig, tmp_path: Path) -> None:
    rig.predict("a", 0)
    rig.label("a", 20.0)
    rig.until(lambda: rig.committed(pipeline.topics.predictions) == 1)
    following = Rig(rig.broker, rig.redis_url, tmp_path / "archive")
    following.monitor.close()
    with pytest.raises(WeirError, match="second monitor"):
        rig.monitor.flush()
    rig.monitor.close()
    assert pl.read_parquet(rig.folder / "*.parquet")["id"].to_list() == ["a"]
