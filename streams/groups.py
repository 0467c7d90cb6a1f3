"""Remote groups as they are declared: entities that are not in their source's key, and so live in another worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streams.declared import duration_ms
from streams.errors import DeclarationError

OnStale = Literal["mark", "withhold"]
_LEAST_MS = 1000


@dataclass(frozen=True)
class Group:
    """An entity whose events go through a topic of their own.

    exact: the scored event goes there itself; else its owner's state is read as it stands.
    fresh_ms: how old that may be, by the clock; None = as old as it is. on_stale: what becomes of an event when it is
    older: "mark" names the group in its prediction, "withhold" leaves it without a score as well.
    """

    entity: tuple[str, ...]
    exact: bool = False
    fresh_ms: int | None = None
    on_stale: OnStale = "mark"

    @property
    def name(self) -> str:
        return "_".join(self.entity)

    def topic(self, pipeline: str) -> str:
        """Where its events go. Also the name of its workers: of their consumer group, their keys in the store."""
        return f"{pipeline}.group.{self.name}"


def group_of(entity: str, fields: tuple[str, ...], exact: Any, fresh: str | None, on_stale: Any) -> Group:
    """The group of an entity that is not in its source's key. Raises DeclarationError."""
    what = f"entity {entity}"
    if not isinstance(exact, bool):
        raise DeclarationError(f"{what}: exact is True or False, not {exact!r}")
    if on_stale not in (None, "mark", "withhold"):
        raise DeclarationError(f'{what}: on_stale is "mark" or "withhold", not {on_stale!r}')
    if exact and (fresh is not None or on_stale is not None):
        raise DeclarationError(f"{what}: exact features are never stale; leave fresh= and on_stale= out, or exact=True")
    if on_stale is not None and fresh is None:
        raise DeclarationError(f'{what}: on_stale needs a bound, for example fresh="5s"')
    fresh_ms = None if fresh is None else duration_ms(fresh, f"{what}: fresh")
    if fresh_ms is not None and fresh_ms < _LEAST_MS:
        raise DeclarationError(
            f"{what}: fresh={fresh!r} is shorter than owners write, which is every second; give 1s or more"
        )
    return Group(fields, exact, fresh_ms, on_stale or "mark")


def check_local(entity: str, key: str, topic: str, exact: Any, fresh: Any, on_stale: Any) -> None:
    """Refuses what belongs to remote groups alone, for an entity that is in the key."""
    options = {"exact": exact or None, "fresh": fresh, "on_stale": on_stale}
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DeclarationError(
            f"entity {entity}: {given[0]}= is for entities that are not in the key of {topic}; this one is "
            f"({key}), and always exact: leave it out"
        )


def merged(groups: list[Group]) -> tuple[Group, ...]:
    """Each group once, in the order of first use. Raises DeclarationError where one is declared in two ways."""
    by_name: dict[str, Group] = {}
    for group in groups:
        other = by_name.setdefault(group.name, group)
        if other.entity != group.entity:
            raise DeclarationError(
                f"entity {group.name}: both ({', '.join(other.entity)}) and ({', '.join(group.entity)}) have that "
                "name; rename a field"
            )
        if other != group:
            raise DeclarationError(
                f"entity {group.name}: declared twice, with another exact=, fresh= or on_stale=; declare it once: "
                f"{group.name} = source.by({', '.join(map(repr, group.entity))}, …)"
            )
    return tuple(by_name.values())
