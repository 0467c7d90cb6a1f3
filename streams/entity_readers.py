"""Who answers for which entity of a pipeline: its own workers' state, and that of each remote group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from features.reader import Entity, StateReader, Unreadable
from features.readings import Readings
from streams.groups import Group


class EntityReaders:
    """Reads by the fields that an entity names. own: of what the first workers keep."""

    def __init__(self, own: StateReader, groups: Mapping[Group, StateReader]) -> None:
        self.own = own
        self._groups = dict(groups)
        self._by_fields = {frozenset(group.entity): reader for group, reader in groups.items()}

    @property
    def features(self) -> list[str]:
        """The names of all that can be read."""
        return [name for reader in (self.own, *self._groups.values()) for name in reader.features]

    async def look(self) -> None:
        """Asks whether everything that was declared can be read. Raises as `StateReader.look` does."""
        if self.own.kinds:
            await self.own.look()
        for group, reader in self._groups.items():
            try:
                await reader.look()
            except Unreadable as error:
                raise Unreadable(error.field, f"remote group {group.name}: {error.said}") from error

    async def read(
        self,
        entities: Sequence[Entity],
        at_ms: int | None = None,
        features: Sequence[str] | None = None,
        *,
        ask_all: bool = False,
    ) -> Readings:
        """See `StateReader.read`. Features of a remote group are asked for alone, by the fields that name it."""
        group = self._by_fields.get(frozenset(entities[0])) if entities else None
        if group is None:
            return await self.own.read(entities, at_ms, features, ask_all=ask_all)
        # A group's records are keyed by the text of all fields together: of several, no field says the partition.
        return await group.read(entities, at_ms, features, ask_all=ask_all or len(entities[0]) > 1)
