"""What a store says of its partitions, taken on trust for a second: who reads it often need not ask every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from features.store import Found, Meta, Store, Wanted

TRUSTED_S = 1.0
"""How long a partition's meta is not asked for again: as long as state is behind anyway, by the default interval of
checkpoints."""


class TrustedReads:
    """Reads rows, each with its partition's meta, which is at most TRUSTED_S old. monotonic_s: the clock."""

    def __init__(self, store: Store, monotonic_s: Callable[[], float]) -> None:
        self._store, self._monotonic_s = store, monotonic_s
        self._metas: dict[int, tuple[Meta, float]] = {}
        """By partition, its meta and when it was read."""

    async def read(self, wanted: Wanted) -> Mapping[int, Found]:
        """As `Store.read`, and raises what that raises. One that is being rebuilt is asked for every time."""
        began = self._monotonic_s()
        since = began - TRUSTED_S
        known = {p: held[0] for p in wanted if (held := self._metas.get(p)) is not None and held[1] > since}
        found = await self._store.read(wanted, known)
        for partition, (meta, _) in found.items():
            if meta is None or meta.rebuilding:
                self._metas.pop(partition, None)
            elif meta is not known.get(partition):
                self._metas[partition] = meta, began
        return found
