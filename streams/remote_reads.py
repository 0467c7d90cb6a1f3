"""The remote groups that a scoring worker reads: their features, how old these are, and what comes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import structlog

from features.remote import GroupReader, Remote, is_stale
from features.spec import Columns
from features.store import Store
from monitors.metrics import Metrics
from streams.groups import Group
from streams.parts import Part

log = structlog.get_logger(__name__)


class Reads:
    """What n scored events got: by group, as `Remote`."""

    def __init__(self, groups: Sequence[Group], found: Sequence[Remote]) -> None:
        self._groups, self._found = groups, found
        self._stale = [is_stale(remote.age_s, group.fresh_ms) for group, remote in zip(groups, found, strict=True)]

    @property
    def given(self) -> dict[str, np.ndarray]:
        """Values float64 [n] by aggregate."""
        return {name: values for remote in self._found for name, values in remote.values.items()}

    def withheld(self, n: int) -> np.ndarray:
        """bool [n]: which events may not have a score."""
        found = np.zeros(n, dtype=np.bool_)
        for group, stale in zip(self._groups, self._stale, strict=True):
            if group.on_stale == "withhold":
                found |= stale
        return found

    def marks(self) -> list[bytes]:
        """JSON members, one an event, to stand after the features: lag and age of each group, and the stale ones."""
        columns = [self._members(g, r) for g, r in zip(self._groups, self._found, strict=True)]
        remote = [b',"remote":{%b}' % b",".join(members) for members in zip(*columns, strict=True)]
        if not any(stale.any() for stale in self._stale):
            return remote
        names = [b'"%b"' % group.name.encode() for group in self._groups]
        by_row = zip(*(stale.tolist() for stale in self._stale), strict=True)
        return [
            mark + (b',"stale":[%b]' % b",".join(n for n, s in zip(names, row, strict=True) if s) if any(row) else b"")
            for mark, row in zip(remote, by_row, strict=True)
        ]

    def count(self, metrics: Metrics) -> None:
        """Adds the round to the metrics."""
        for group, remote, stale in zip(self._groups, self._found, self._stale, strict=True):
            lag_s, age_s = remote.lag_s[~np.isnan(remote.lag_s)], remote.age_s[np.isfinite(remote.age_s)]
            metrics.observe_array("weir_remote_lag_seconds", lag_s, group=group.name)
            metrics.observe_array("weir_remote_age_seconds", age_s, group=group.name)
            if unknown := int(np.isinf(remote.age_s).sum()):
                metrics.inc("weir_remote_unknown_total", unknown, group=group.name)
            if count := int(stale.sum()):
                metrics.inc("weir_remote_stale_total", count, group=group.name, action=group.on_stale)

    @staticmethod
    def _members(group: Group, remote: Remote) -> list[bytes]:
        member = b'"%b":{"lag":%%b,"age":%%b}' % group.name.encode()
        return [member % pair for pair in zip(_seconds(remote.lag_s), _seconds(remote.age_s), strict=True)]


class RemoteReads:
    """Reads the groups of a part, all at once. store_of: the store of a group's owners, by the owner's name."""

    def __init__(self, part: Part, store_of: Callable[[str], Store], partitions: int) -> None:
        self.groups = part.read
        owners = [part.owner_of(group).pipeline for group in part.read]
        self._readers = [GroupReader(owner.spec, store_of(owner.name), partitions) for owner in owners]
        self._said: dict[str, str] = {}

    async def read(self, fields: Columns, times: np.ndarray) -> Reads:
        """For n scored events. Raises StoreUnavailable: nothing was read then."""
        found = await asyncio.gather(*(reader.read(fields, times) for reader in self._readers), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        for group, reader in zip(self.groups, self._readers, strict=True):
            if reader.refused != self._said.get(group.name, ""):
                self._said[group.name] = reader.refused
                if reader.refused:
                    log.warning("features of a remote group are missing", group=group.name, reason=reader.refused)
        return Reads(self.groups, [one for one in found if isinstance(one, Remote)])

    def unknown(self, n: int) -> Reads:
        """While the store does not answer."""
        return Reads(self.groups, [Remote.unknown(reader.spec, n) for reader in self._readers])


def _seconds(values: np.ndarray) -> list[bytes]:
    """Milliseconds are enough; null for what is not known."""
    return [b"null" if value != value or value in (np.inf, -np.inf) else b"%.3f" % value for value in values.tolist()]


