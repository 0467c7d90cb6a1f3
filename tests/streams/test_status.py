"""`weir status`, `weir drift` and `weir retrain`: what they say of a loop that has run, and of one that has not."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner, Result

from monitors.loop import retrain_from_json
from streams.cli import app
from streams.embedded import Embedded, start_embedded
from streams.errors import UsageError, WeirError
from streams.loading import load_pipeline
from streams.loop_reader import LoopReader
from streams.retrain_request import check, compose
from streams.settings import Settings
from tests.streams.loop_records import DAY_MS, PIPELINE, block, deployment, drift, retrain, write


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Embedded]]:
    """A data directory with servers, and in it the pipeline `shop`, whose loop has run."""
    folder = tmp_path_factory.mktemp("status")
    with start_embedded(folder / "data") as pair:
        (folder / "shop.py").write_text(PIPELINE)
        (folder / "silent.py").write_text(PIPELINE.replace('"shop"', '"silent"'))
        producer = Producer({"bootstrap.servers": pair.broker})
        for topic, count in (("payments", 10), ("shop.predictions", 8)):
            for _ in range(count):
                producer.produce(topic, b"x", partition=0)
        assert producer.flush(10) == 0
        for group, topic in (("shop-worker", "payments"), ("shop-monitor", "shop.predictions")):
            member = Consumer({"bootstrap.servers": pair.broker, "group.id": group, "enable.auto.commit": False})
            member.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
            member.close()
        write(pair.broker, "shop.blocks", [block(1), block(2), block(3, labels=600, missing=200)])
        write(pair.broker, "shop.drift", [drift("d1aa", signal="feature.amount"), drift("d2bb")])
        write(pair.broker, "shop.retrain", [retrain("r1", 2), retrain("r2", 3, ("d1aa", "d2bb"))])
        told = [
            {"kind": "promoted", "retrain": "r1", "version": "1", "time": 2 * DAY_MS, "id": "r1"},
            {"kind": "rejected", "retrain": "r2", "version": "2", "time": 4 * DAY_MS, "id": "r2", "reasons": ["worse"]},
        ]
        write(pair.broker, "shop.alerts", [json.dumps(alert).encode() for alert in told])
        history = [
            deployment("a", "1", cause="r1"),
            deployment("b", "1", "2", candidate="2", cause="r2"),
            deployment("c", "2", "1", previous="1", cause="r2"),
            deployment("d", "1", "2", cause="rolled back"),
        ]
        write(pair.broker, "shop.deployments", history)
        yield folder, pair


@pytest.fixture(autouse=True)
def _in_its_folder(running: tuple[Path, Embedded], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WEIR_DATA_DIR", str(running[0] / "data"))
    monkeypatch.setenv("WEIR_HTTP", "127.0.0.1:0")
    monkeypatch.chdir(running[0])
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def weir(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def report(*arguments: str) -> Any:
    found = weir(*arguments, "--json")
    assert found.exit_code == 0, found.stderr
    assert found.stdout.count("\n") == 1
    return json.loads(found.stdout)


# status


def test_status_says_what_serves_and_since_when() -> None:
    found = report("status", "shop.py")["deployment"]
    assert (found["id"], found["cause"], found["canary_share"]) == ("d", "rolled back", None)
    champion, shadow = found["versions"]
    assert (champion["version"], champion["place"], champion["since"]) == ("1", "champion", found["since"])
    # It was champion in between: a shadow only since the roll-back.
    assert (shadow["version"], shadow["place"], shadow["since"]) == ("2", "shadow", found["since"])


def test_status_tells_the_last_drift_the_last_retraining_and_what_became_of_it() -> None:
    found = report("status", "shop.py")
    assert (found["drift"]["id"], found["drifts"]) == ("d2bb", 2)
    assert (found["retrain"]["id"], found["retrains"]) == ("r2", 2)
    outcome = {"kind": "rejected", "version": "2", "reasons": ["worse"], "time": 4 * DAY_MS}
    assert found["retrain"]["outcome"] == outcome
    assert found["alert"]["kind"] == "rejected"


def test_status_counts_lag_by_role_and_topic_and_says_how_many_labels_came() -> None:
    found = report("status", "shop.py")
    assert found["lag"]["worker"] == {"records": 3, "topics": {"payments": 3}}
    assert found["lag"]["monitor"] == {"records": 1, "topics": {"shop.predictions": 1, "chargebacks": None}}
    assert found["lag"]["trainer"]["records"] is None
    assert found["labels"] == {
        "block": 3,
        "end": 4 * DAY_MS,
        "predictions": 1000,
        "unscored": 0,
        "labels": 600,
        "missing": 200,
        "coverage": 0.75,
        "delay_s": 7200.0,
    }


def test_status_for_people_names_the_same() -> None:
    said = weir("status", "shop.py").stdout
    for words in (
        "shop: deployment d since ",
        "(rolled back)",
        "loss by psi, 1970-01-04 00:00:00 UTC (d2bb; 2 in all)",
        "drift, 1970-01-04 00:00:00 UTC (r2; 2 in all): rejected version 2: worse",
        "not seen on this machine  3 records",
        "block to 1970-01-05 00:00:00 UTC: 600 labels, 75.0% of those that were due, 7,200 s after the event",
    ):
        assert words in said, said


def test_status_of_a_pipeline_that_never_ran_says_so() -> None:
    found = report("status", "silent.py")
    assert {name: found[name] for name in ("deployment", "drift", "retrain", "alert", "labels")} == dict.fromkeys(
        ("deployment", "drift", "retrain", "alert", "labels")
    )
    said = weir("status", "silent.py").stdout
    assert "silent: no deployment; predictions are unscored" in said
    assert "no block yet" in said


class _Endpoint(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = {"ready": False, "reasons": {"store": "away"}}
        body = json.dumps(ready if self.path == "/health/ready" else {"pipeline": "shop", "pid": 7}).encode()
        self.send_response(503 if self.path == "/health/ready" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_status_asks_the_roles_of_this_machine_how_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("WEIR_HTTP", f"127.0.0.1:{server.server_port}")
        found = report("status", "shop.py")["roles"]
        other = report("status", "silent.py")["roles"]
        said = weir("status", "shop.py").stdout
        server.shutdown()
        thread.join()
    assert found["worker"]["pid"] == 7
    assert (found["worker"]["ready"], found["worker"]["reasons"]) == (False, {"store": "away"})
    assert found["monitor"] is None
    assert other["worker"] is None  # what answers there is of another pipeline
    assert "not ready: store: away" in said


@pytest.mark.parametrize(
    "command", [("status",), ("drift", "list"), ("drift", "show"), ("retrain", "list"), ("retrain", "trigger")]
)
def test_without_a_broker_each_says_what_to_start(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_DATA_DIR", str(tmp_path))
    found = weir(*command, "shop.py", *(["d1"] if command[-1] == "show" else []))
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith(f"the embedded broker of {tmp_path} does not run: start the pipeline")


def test_a_broker_that_does_not_answer_is_said_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_BROKER", "127.0.0.1:1")
    monkeypatch.setattr("streams.kafka.REQUEST_S", 1.0)
    found = weir("status", "shop.py", "--json")
    assert (found.exit_code, found.stdout) == (1, "")
    *logged, said = found.stderr.splitlines()
    assert said.startswith("no Kafka broker answers")
    assert all("127.0.0.1:1" in line for line in logged)  # librdkafka's own words


# drift


def test_drifts_are_listed_with_the_retrain_event_that_they_led_to() -> None:
    found = report("drift", "list", "shop.py")["drifts"]
    assert [(one["id"], one["signal"], one["retrain"]) for one in found] == [
        ("d1aa", "feature.amount", "r2"),
        ("d2bb", "loss", "r2"),
    ]
    said = weir("drift", "list", "shop.py").stdout
    assert "d2bb  1970-01-04 00:00:00  loss" in said
    assert said.count("\n") == 3


def test_drifts_can_be_chosen_by_signal() -> None:
    assert [one["id"] for one in report("drift", "list", "shop.py", "--signal", "feature.*")["drifts"]] == ["d1aa"]
    assert report("drift", "list", "shop.py", "--signal", "label") == {"pipeline": "shop", "drifts": []}
    assert weir("drift", "list", "shop.py", "--signal", "label").stdout == "shop has no such drift\n"


def test_one_drift_is_shown_by_how_its_id_begins() -> None:
    assert report("drift", "show", "shop.py", "d1")["drift"]["before"] == {"mean": 0.5, "blocks": 3, "n": 2700}
    said = weir("drift", "show", "shop.py", "d2bb").stdout
    assert "0.41, beyond the threshold 0.25" in said
    assert "mean 0.75 over 2 blocks, 1,800 events" in said


@pytest.mark.parametrize(("id", "why"), [("x", "there is no such drift"), ("d", "2 drifts have ids that begin so")])
def test_a_drift_that_is_not_one_drift_is_said(id: str, why: str) -> None:
    found = weir("drift", "show", "shop.py", id)
    assert (found.exit_code, found.stdout) == (1, "")
    assert why in found.stderr


# retrain


def test_retrain_events_are_listed_with_their_outcome() -> None:
    found = report("retrain", "list", "shop.py")["events"]
    assert [(one["id"], one["outcome"] and one["outcome"]["kind"]) for one in found[:2]] == [
        ("r1", "promoted"),
        ("r2", "rejected"),
    ]
    assert "rejected version 2: worse" in weir("retrain", "list", "shop.py").stdout
    assert weir("retrain", "list", "silent.py").stdout == "silent has no retrain event\n"


def test_a_model_that_is_asked_for_twice_with_one_id_is_asked_for_once(running: tuple[Path, Embedded]) -> None:
    broker = running[1].broker
    (running[0] / "asked.py").write_text(PIPELINE.replace('"shop"', '"asked"'))
    write(broker, "asked.blocks", [block(1), block(2)])
    write(broker, "asked.retrain", [retrain("r1", 2)])
    first = report("retrain", "trigger", "asked.py", "--id", "nightly-1", "--reason-text", "new tariffs")
    again = report("retrain", "trigger", "asked.py", "--id", "nightly-1", "--reason-text", "other words")
    assert (first["published"], again["published"]) == (True, False)
    assert again["event"] == first["event"]
    with LoopReader(load_pipeline("asked.py"), Settings(), broker) as reader:
        records = reader.records("asked.retrain")
    assert len(records) == 2
    event = retrain_from_json(records[1].value)
    assert (event.id, event.reason, records[1].key) == ("nightly-1", "manual", b"nightly-1")
    assert (event.range.start, event.range.to) == (DAY_MS, 3 * DAY_MS)  # to the end of the latest block
    assert (event.labels, event.new_labels, event.coverage) == (1800, 900, 0.9)
    assert event.policy["asked"] == "new tariffs"
    assert event.spec_hash == load_pipeline("asked.py").spec.hash
    said = weir("retrain", "trigger", "asked.py", "--id", "nightly-1").stdout
    assert said == "retrain event nightly-1 was there already (manual): nothing is published\n"


def test_without_an_id_each_asking_is_an_event_of_its_own(running: tuple[Path, Embedded]) -> None:
    (running[0] / "often.py").write_text(PIPELINE.replace('"shop"', '"often"'))
    write(running[1].broker, "often.blocks", [block(1)])
    first, second = (report("retrain", "trigger", "often.py")["event"] for _ in range(2))
    assert first["id"] != second["id"]
    assert (first["new_labels"], second["new_labels"]) == (900, 0)
    assert [one["id"] for one in report("retrain", "list", "often.py")["events"]] == [first["id"], second["id"]]


def test_asking_for_a_model_before_there_is_a_label_says_why_not() -> None:
    found = weir("retrain", "trigger", "silent.py")
    assert found.exit_code == 1
    assert "pipeline silent knows no label yet" in found.stderr
    assert report("retrain", "list", "silent.py")["events"] == []


def test_the_range_counts_labels_since_the_last_event_wherever_that_fell() -> None:
    pipeline = load_pipeline("shop.py")
    event, known = compose(pipeline, [block(1), block(2), block(3)], [retrain("r1", 2), retrain("r2", 3)], 99)
    assert (known, event.time, event.labels, event.new_labels) == (False, 99, 2700, 900)
    with pytest.raises(WeirError, match="no label yet"):
        compose(pipeline, [block(1, labels=0)], [], 99)


@pytest.mark.parametrize("id", ["", "a b", "-x", "x" * 65, "ä"])
def test_an_id_that_cannot_be_a_name_is_wrong_use(id: str) -> None:
    with pytest.raises(UsageError, match="--id"):
        check(load_pipeline("shop.py"), id)
    found = weir("retrain", "trigger", "shop.py", "--id=" + id)
    assert found.exit_code == 2


def test_a_pipeline_that_declares_no_retraining_cannot_be_asked() -> None:
    Path("plain.py").write_text(PIPELINE.replace(", retrain=Retrain()", "").replace('"shop"', '"plain"'))
    found = weir("retrain", "trigger", "plain.py")
    assert (found.exit_code, found.stderr) == (
        2,
        "pipeline plain declares no retraining; give it retrain=Retrain(…)\n",
    )
