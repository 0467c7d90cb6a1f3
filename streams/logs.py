"""Logs: structlog events on stderr, a line each, JSON or for a terminal; stdlib loggers too."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict

_COLOURS = {"warning": "33", "error": "1;31", "critical": "1;31"}

# Libraries that are talkative at a level where their news is not ours.
_QUIET = {
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "uvicorn": logging.WARNING,
    "asyncio": logging.WARNING,
}


def configure_logs(
    level: str = "info",
    form: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
    *,
    role: str | None = None,
) -> None:
    """Sends everything that this process logs to `stream` (stderr). May be called again.

    role: what this process is in a pipeline (worker, monitor, run); on each of its lines.
    """
    stream = stream or sys.stderr

    def named(_: Any, __: str, event: EventDict) -> EventDict:
        return event if role is None else {"role": role, **event}

    console = form == "console" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.StackInfoRenderer(),
        named,
    ]
    render = _console(stream.isatty(), debug=level == "debug") if console else _json()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, floor in _QUIET.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(floor, root.level) if level != "debug" else logging.DEBUG)
    logging.captureWarnings(True)
    warnings.simplefilter("default" if level == "debug" else "ignore", DeprecationWarning)


def _json() -> list[Any]:
    # Without local variables: they hold users' data, and passwords.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer(default=str)]


def _console(colours: bool, *, debug: bool) -> list[Any]:
    """Lines such as `12:00:01 worker  warning: what happened  name=value`; a traceback only where one debugs."""

    def painted(text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colours and colour else text

    def line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        level, trace = event.pop("level", "info"), event.pop("exception", None)
        said = f"{'' if level == 'info' else level + ': '}{event.pop('event', '')}"
        begin = [painted(event.pop("timestamp", ""), "2")]
        if "role" in event:
            begin.append(painted(f"{event.pop('role'):7}", "2"))
        values = [f"{painted(name, '36')}={value}" for name, value in event.items()]
        return " ".join([*begin, painted(f"{said:36}" if values else said, _COLOURS.get(level, "")), *values]) + (
            f"\n{trace}" if trace else ""
        )

    return [structlog.processors.format_exc_info if debug else _without_origin, line]


def _without_origin(_: Any, __: str, event: EventDict) -> EventDict:
    event.pop("logger", None)
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event.setdefault("error", f"{type(error).__name__}: {error}")
    return event


class Sparingly(logging.Filter):
    """Lets one line of a kind (its first word) through in `pause_s`: a broker that is away is said once, not 13 times
    a second. `clock` gives seconds.
    """

    def __init__(self, pause_s: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._pause_s, self._clock = pause_s, clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = record.getMessage().partition(" ")[0], self._clock()
        if now - self._said.get(kind, -self._pause_s) < self._pause_s:
            return False
        self._said[kind] = now
        return True


def librdkafka_logger() -> logging.Logger:
    """The `logger=` of a confluent_kafka client: librdkafka's own lines, sparingly, under the name "librdkafka"."""
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(Sparingly(30.0, time.monotonic))
    return logger
