"""What `weir run` says of its worker while it runs: when it is ready, and how much it has worked off."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_LOOK_S = 2.0
_SAY_S = 10.0
_ANSWER_S = 0.5
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # a proxy is for other machines
_COUNTS = {"predictions": "scored", "unscored": "unscored", "dead_letters": "dead_letters"}


def ask(url: str) -> dict[str, Any] | None:
    """The JSON object at `url`, whatever its status; None where nothing answers, or nothing that can be read."""
    try:
        try:
            with _OPEN(url, timeout=_ANSWER_S) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return found if isinstance(found, dict) else None


class Watch:
    """Looks at a worker's HTTP endpoint at `url` every two seconds; says changes of readiness, and counts that grew.

    Counts are said at most every ten seconds, and not while nothing comes.
    """

    def __init__(self, url: str, ask: Callable[[str], dict[str, Any] | None] = ask) -> None:
        self._url, self._ask = url, ask
        self._looked_s = self._said_s = float("-inf")
        self._ready: dict[str, Any] | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)

    def look(self, now_s: float) -> None:
        """now_s: of the monotonic clock."""
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        ready = self._ask(f"{self._url}/health/ready")
        if ready is not None and ready != self._ready:
            fell, self._ready = self._ready is not None, ready
            if ready.get("ready"):
                log.info("ready", role="worker")
            else:  # expected of one that starts
                (log.warning if fell else log.info)("not ready", role="worker", **ready.get("reasons", {}))
        if now_s - self._said_s >= _SAY_S and (status := self._ask(f"{self._url}/status")) is not None:
            self._say(status, now_s)

    def _say(self, status: dict[str, Any], now_s: float) -> None:
        counts = {name: int(status.get(name) or 0) for name in _COUNTS}
        if any(counts[name] < before for name, before in self._counts.items()):
            self._counts = dict.fromkeys(_COUNTS, 0)  # a new process counts from zero
        grown = {_COUNTS[name]: count - self._counts[name] for name, count in counts.items()}
        self._counts = counts
        if any(grown.values()):
            self._said_s = now_s
            log.info("worked off", role="worker", **grown, lag=status.get("lag"))
