"""Logs are one line each on the stream given, whoever wrote them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from streams.logs import Sparingly, configure_logs, librdkafka_logger


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_own_events_are_json_with_their_values() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    structlog.get_logger("streams.intake").info("partition assigned", partition=3)
    (line,) = lines(stream)
    assert (line["event"], line["partition"], line["level"]) == ("partition assigned", 3, "info")
    assert line["logger"] == "streams.intake"
    assert "timestamp" in line


def test_libraries_log_the_same_way() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    librdkafka_logger().warning("broker %s is down", "kafka:9092")
    logging.getLogger("faust.app").info("talk")
    logging.getLogger("uvicorn.error").warning("odd request")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("librdkafka", "broker kafka:9092 is down"),
        ("uvicorn.error", "odd request"),
    ]


def test_a_level_holds_back_what_is_less_severe() -> None:
    stream = io.StringIO()
    configure_logs("warning", "json", stream)
    structlog.get_logger("weir").info("no")
    structlog.get_logger("weir").error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_an_exception_stays_on_its_line() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    try:
        raise ValueError("bad")
    except ValueError as error:
        structlog.get_logger("weir").error("failed", exc_info=error)
    (line,) = lines(stream)
    assert "ValueError" in json.dumps(line["exception"])


def test_a_terminal_gets_text_and_setting_up_twice_does_not_repeat_lines() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    configure_logs("info", "console", stream)
    structlog.get_logger("weir").info("hello", n=1)
    assert len(stream.getvalue().splitlines()) == 1
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_line_of_a_kind_comes_through_once_in_a_while() -> None:
    now = 0.0
    sparingly = Sparingly(30.0, lambda: now)

    def passes(message: str) -> bool:
        return sparingly.filter(logging.LogRecord("librdkafka", logging.ERROR, "", 0, message, None, None))

    assert passes("FAIL [a] connection refused")
    assert not passes("FAIL [b] connection refused")
    assert passes("REQTMOUT [a] timed out")
    now = 30.0
    assert passes("FAIL [a] connection refused")
