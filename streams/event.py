"""Events: the typed records of a topic, and the columns that a pipeline's declaration sees in them."""

from __future__ import annotations

import keyword
import re
from typing import Any

import msgspec
import numpy as np

from features.spec import Columns, Field
from streams.errors import DeclarationError, did_you_mean

_NUMBERS = (msgspec.inspect.IntType, msgspec.inspect.FloatType, msgspec.inspect.BoolType)


class Event(msgspec.Struct, gc=False):
    """Base of a topic's events: annotate fields with int, float, bool or str, `| None` where null may come.

    Types are strict: an event that does not fit goes to the dead-letter topic. Fields that are not named here
    are ignored. A field with a default may be absent.

        class Payment(Event):
            payment_id: str
            amount: float
            ts: int
            note: str | None = None
    """


def event_fields(event: type[Event]) -> tuple[Field, ...]:
    """The fields of an event type, in their order. A type that is no column is a DeclarationError."""
    if not (isinstance(event, type) and issubclass(event, Event)) or event is Event:
        raise DeclarationError(f"{event!r} is not an event type: write class {_name(event)}(Event) with its fields")
    try:
        info = msgspec.inspect.type_info(event)
    except (NameError, TypeError) as error:
        raise DeclarationError(f"event {event.__name__}: its annotations cannot be read: {error}") from error
    assert isinstance(info, msgspec.inspect.StructType)
    if not info.fields:
        raise DeclarationError(f"event {event.__name__}: it has no fields; annotate at least its key and its time")
    return tuple(_field(event, field) for field in info.fields)


def integer_fields(event: type[Event]) -> frozenset[str]:
    """Names of the fields whose values are whole numbers."""
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    whole = (msgspec.inspect.IntType, msgspec.inspect.NoneType)
    return frozenset(f.name for f in info.fields if all(isinstance(t, whole) for t in _members(f.type)))


def optional_fields(event: type[Event]) -> frozenset[str]:
    """Names of the fields that may be absent."""
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    return frozenset(f.name for f in info.fields if not f.required)


def wire_names(event: type[Event]) -> dict[str, str]:
    """By field, its name in the records: another one where the type says msgspec.field(name=…)."""
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    return {f.name: f.encode_name for f in info.fields}


def make_event(name: str, fields: dict[str, Any]) -> type[Event]:
    """An event type from {field: annotation or (annotation, default)}; what a YAML file declares."""
    required = [(field, kind) for field, kind in fields.items() if not isinstance(kind, tuple)]
    optional = [(field, *kind) for field, kind in fields.items() if isinstance(kind, tuple)]
    made: type[Event] = msgspec.defstruct(name, [*required, *optional], bases=(Event,), gc=False)  # type: ignore[assignment]
    return made


def unknown_field(name: str, owner: str, fields: tuple[Field, ...]) -> str:
    """ "payments has no field 'amont'; did you mean 'amount'?", or what it has where nothing is close."""
    names = [field.name for field in fields]
    return f"{owner} has no field {name!r}" + (did_you_mean(name, names) or f"; it has {', '.join(names)}")


class SampleColumns(dict[str, Any]):
    """Two made-up records (ones, and texts "?"): enough to see that a vectorised function fits its stream."""

    def __init__(self, owner: str, fields: tuple[Field, ...]) -> None:
        super().__init__({f.name: np.ones(2) if f.kind == "number" else ["?", "?"] for f in fields})
        self._owner, self._fields = owner, fields

    def __missing__(self, name: str) -> Any:
        raise DeclarationError(unknown_field(str(name), self._owner, self._fields))


def check_function(what: str, function: Any, owner: str, fields: tuple[Field, ...]) -> None:
    """Runs `function` on SampleColumns: its fields must exist, and it must return one number a record.

    Errors that depend on values (ValueError, ZeroDivisionError …) say nothing of real records and pass.
    """
    if not callable(function):
        raise DeclarationError(f"{what}: {function!r} is not a function of the event's columns")
    columns: Columns = SampleColumns(owner, fields)
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function(columns))
    except DeclarationError as error:
        raise DeclarationError(f"{what}: {error}") from error
    except (TypeError, AttributeError, NameError) as error:
        mend = "it gets columns (arrays, or lists of texts), not single values"
        raise DeclarationError(f"{what}: the function fails on a sample batch: {error}; {mend}") from error
    except Exception:
        return
    if result.shape != (2,) or result.dtype.kind not in "fiub":
        found = f"{result.dtype} {list(result.shape)}"
        raise DeclarationError(f"{what}: the function must return one number a record (here 2), it returned {found}")


def _field(event: type[Event], field: msgspec.inspect.Field) -> Field:
    members = _members(field.type)
    nullable = any(isinstance(t, msgspec.inspect.NoneType) for t in members)
    kinds = {_kind(t) for t in members if not isinstance(t, msgspec.inspect.NoneType)}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        raise DeclarationError(
            f"event {event.__name__}: field {field.name} must be int, float, bool or str (with | None "
            "if it may be null); mend it, or leave it out: fields that are not named are ignored"
        )
    return Field(field.name, "number" if kind == "number" else "string", nullable)


def _members(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return tuple(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _kind(kind: msgspec.inspect.Type) -> str | None:
    if isinstance(kind, _NUMBERS):
        return "number"
    if isinstance(kind, msgspec.inspect.StrType):
        return "string"
    if isinstance(kind, msgspec.inspect.LiteralType) and all(isinstance(value, str) for value in kind.values):
        return "string"
    return None


def _name(event: Any) -> str:
    name = getattr(event, "__name__", "Payment")
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) and not keyword.iskeyword(name) else "Payment"
