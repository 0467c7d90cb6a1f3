"""What a growth bench measures: along each axis one thing of the payments example grows, all else stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streams.errors import UsageError

NUMBERS = 16
"""More numbers in each payment on the axis of features, at 8 features too: what is decoded stays the same there."""

STARTUP_S = 15.0
PREPARED_PER_S = 20_000


@dataclass(frozen=True)
class Point:
    """One thing to measure. size: where it lies on its axis; label: how that is written.

    The other fields are the load's: users, features of the user, numbers in a payment beside its amount, partitions,
    units of the model's two hidden layers, records in a poll at most.
    """

    axis: str
    label: str
    size: float
    users: int = 10_000
    features: int = 8
    numbers: int = 0
    partitions: int = 4
    hidden: tuple[int, int] = (64, 32)
    batch: int = 4096
    base: bool = False

    @property
    def input(self) -> str:
        """The topic of its payments: points with the same ones share it."""
        return f"growth-in-{self.users}-{self.numbers}-{self.partitions}"


@dataclass(frozen=True)
class Plan:
    """`points` in their order, the cache bound to `cache` rows.

    Before a point is measured, every user has paid once and `warm_up` payments more are scored, or `warm_up_s` are
    over; then it is measured for `seconds`, or until its topic of `records` payments more is worked off.
    """

    points: tuple[Point, ...]
    records: int
    warm_up: int
    seconds: float
    cache: int

    def warm_up_s(self, point: Point) -> float:
        """The longest that a point is warmed up."""
        return STARTUP_S + point.users / PREPARED_PER_S


def _axis(name: str, base: Point, *others: Point) -> tuple[Point, ...]:
    points = (replace(base, base=True), *others)
    return tuple(sorted((replace(point, axis=name) for point in points), key=lambda point: point.size))


_BASE = Point("", "", 0)
_WIDE = replace(_BASE, numbers=NUMBERS)

AXES: dict[str, tuple[Point, ...]] = {
    "entities": _axis(
        "entities",
        replace(_BASE, label="10k", size=10_000),
        replace(_BASE, label="1M", size=1e6, users=1_000_000),
        replace(_BASE, label="10M", size=1e7, users=10_000_000),
    ),
    "features": _axis(
        "features",
        replace(_WIDE, label="8", size=8),
        replace(_WIDE, label="50", size=50, features=50),
        replace(_WIDE, label="200", size=200, features=200),
    ),
    "partitions": _axis(
        "partitions",
        replace(_BASE, label="4", size=4),
        *(replace(_BASE, label=str(n), size=n, partitions=n) for n in (1, 12, 100)),
    ),
    "model": _axis(
        "model",
        replace(_BASE, label="10 kB", size=1e4),
        replace(_BASE, label="1 MB", size=1e6, hidden=(500, 500)),
        replace(_BASE, label="50 MB", size=5e7, hidden=(3500, 3500)),
    ),
    "batch": _axis(
        "batch",
        replace(_BASE, label="4,096", size=4096),
        *(replace(_BASE, label=f"{n:,}", size=n, batch=n) for n in (1, 8, 64, 512, 8192)),
    ),
}

SHORT: dict[str, tuple[Point, ...]] = {
    "entities": _axis(
        "entities",
        replace(_BASE, label="1k", size=1000, users=1000),
        replace(_BASE, label="20k", size=20_000, users=20_000),
    ),
    "features": (replace(AXES["features"][-1], users=1000),),
    "partitions": (replace(AXES["partitions"][-1], users=1000),),
    "model": (replace(AXES["model"][1], users=1000),),
    "batch": (replace(AXES["batch"][1], users=1000),),
}


def plan(axes: str, *, short: bool) -> Plan:
    """Of the axes named, separated by commas; empty = all. UsageError for one that is not there.

    short: does it run? The ends of the axes alone, smaller, for seconds.
    """
    known = SHORT if short else AXES
    names = [name.strip() for name in axes.split(",") if name.strip()] or list(known)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--axis {unknown[0]}: there are {', '.join(known)}")
    points = tuple(point for name in dict.fromkeys(names) for point in known[name])
    if short:
        return Plan(points, records=150_000, warm_up=2_000, seconds=2.0, cache=2_000)
    return Plan(points, records=1_600_000, warm_up=100_000, seconds=20.0, cache=200_000)


def base_of(points: Sequence[Point], point: Point) -> Point | None:
    """The base case of the point's axis, if it is among `points`."""
    return next((other for other in points if other.base and other.axis == point.axis), None)
