"""`weir run` says when its worker is ready and what it has worked off, and no more than that."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from streams.watch import Watch, ask

READY: dict[str, Any] = {"ready": True, "reasons": {}}


class Answers:
    """A worker's answers, set by the test."""

    def __init__(self) -> None:
        self.ready: dict[str, Any] | None = None
        self.status: dict[str, Any] | None = None

    def __call__(self, url: str) -> dict[str, Any] | None:
        return self.ready if url.endswith("/health/ready") else self.status

    def counts(self, predictions: int, dead_letters: int = 0) -> None:
        self.status = {"predictions": predictions, "unscored": 0, "dead_letters": dead_letters, "lag": 3}


def said(watch: Watch, now_s: float) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        watch.look(now_s)
    return [dict(line) for line in lines]


def test_readiness_is_said_when_it_changes() -> None:
    worker = Answers()
    watch = Watch("http://worker", worker)
    assert said(watch, 0) == []
    worker.ready = {"ready": False, "reasons": {"worker": "loading models"}}
    (line,) = said(watch, 2)
    assert (line["event"], line["worker"], line["log_level"]) == ("not ready", "loading models", "info")
    assert said(watch, 4) == []
    worker.ready = READY
    assert [line["event"] for line in said(watch, 6)] == ["ready"]
    assert said(watch, 8) == []
    worker.ready = {"ready": False, "reasons": {"store": "does not answer"}}
    assert [line["log_level"] for line in said(watch, 10)] == ["warning"]


def test_counts_are_said_when_they_grew_and_at_most_every_ten_seconds() -> None:
    worker = Answers()
    watch = Watch("http://worker", worker)
    worker.counts(5, 1)
    (line,) = said(watch, 0)
    assert (line["scored"], line["unscored"], line["dead_letters"], line["lag"]) == (5, 0, 1, 3)
    worker.counts(9, 1)
    assert said(watch, 4) == []
    (line,) = said(watch, 10)
    assert (line["scored"], line["dead_letters"]) == (4, 0)
    assert said(watch, 30) == []


def test_a_worker_that_was_started_again_counts_from_zero() -> None:
    worker = Answers()
    watch = Watch("http://worker", worker)
    worker.counts(50)
    said(watch, 0)
    worker.counts(7)
    assert said(watch, 20)[0]["scored"] == 7


def test_it_does_not_look_more_often_than_every_two_seconds() -> None:
    worker = Answers()
    watch = Watch("http://worker", worker)
    said(watch, 0)
    worker.ready = READY
    assert said(watch, 1.9) == []
    assert said(watch, 2.0) != []


def test_an_endpoint_that_is_not_there_is_no_answer() -> None:
    assert ask("http://127.0.0.1:9/status") is None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"what is this\r\n\r\n", id="not-http"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", id="cut-off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", id="not-json"),
        pytest.param(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", id="503-not-json"),
        pytest.param(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n{", id="503-cut-off"),
    ],
)
def test_an_answer_that_is_not_readable_is_no_answer(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(f"http://127.0.0.1:{server.getsockname()[1]}/status") is None
        thread.join(5)
