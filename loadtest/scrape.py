"""What a worker's own metrics say of a stretch of time: histograms between two looks at /metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPConnection

from streams.errors import WeirError

Buckets = Mapping[float, float]
"""Upper bound in the metric's unit → observations up to it, as Prometheus counts them."""

_TIMEOUT_S = 5.0


def page(address: str) -> str:
    """/metrics of the worker at host:port. Raises WeirError where none answers."""
    connection = HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError as error:
        raise WeirError(f"no metrics at {address}: {error}") from None
    finally:
        connection.close()


def total(text: str, name: str, label: str = "") -> float:
    """The sum of a metric's series, of those alone whose labels hold the text `label`."""
    lines = text.splitlines()
    named = (line.rpartition(" ") for line in lines if line.startswith((name + " ", name + "{")))
    return sum(float(value) for series, _, value in named if label in series)


def buckets(text: str, name: str, **labels: str) -> Buckets:
    """Of the histogram `name` with `labels`; empty where the page has none."""
    found: dict[float, float] = {}
    for line in re.finditer(rf"^{name}_bucket\{{(.*)\}} (\S+)", text, re.MULTILINE):
        given = dict(re.findall(r'(\w+)="([^"]*)"', line[1]))
        bound = given.pop("le")
        if given == labels:
            found[float(bound)] = float(line[2])
    return found


def quantile(before: Buckets, after: Buckets, q: float) -> float | None:
    """The q-quantile of what was observed in between, even within a bucket; None if nothing was.

    Beyond the last finite bound it is that bound: no more is known.
    """
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    rank, low, below = q * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if bound == float("inf"):
            break
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low
