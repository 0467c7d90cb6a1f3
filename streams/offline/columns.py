"""Columns of Parquet and CSV files against an event type: the same types and bounds as on the stream, by whole columns.

What no row of a file can mend (a column that is missing, or of another type) is a UsageError. What single rows break is
found by rules, in the order in which the stream looks: types, time, key, bounds, and the source's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import polars as pl

from streams.contract import STAGE, Contract
from streams.decode import MAX_EXACT, MAX_KEY_CHARS, MAX_NUMBER, explained
from streams.errors import UsageError
from streams.offline.rejects import Reject
from streams.offline.wanted import EXACT, Wanted

TIMESTAMP, PARTITION, OFFSET = "_timestamp", "_partition", "_offset"
"""Columns that say where a row lay in its topic, by their names in checked frames."""

_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


@dataclass(frozen=True)
class Places:
    """The names of the columns with a record's timestamp in ms, its partition and its offset; None = there is none."""

    timestamp: str | None = None
    partition: str | None = None
    offset: str | None = None

    def of(self) -> dict[str, str]:
        """The columns that there are, by what they are."""
        named = {TIMESTAMP: self.timestamp, PARTITION: self.partition, OFFSET: self.offset}
        return {what: name for what, name in named.items() if name is not None}


@dataclass(frozen=True)
class _Rule:
    """Rows for which `broken` is true go to the rejects. A "{}" in the reason stands for the row's value."""

    broken: pl.Expr
    stage: str
    code: str
    reason: str
    field: str


@dataclass(frozen=True)
class _Declared:
    """A field of an event: the name of its column, its kind, whether it may be null or absent."""

    name: str
    column: str
    kind: str
    nullable: bool
    default: Any


class Columns:
    """Checks frames of one file. schema: its columns; text: whether all of them are texts (CSV)."""

    def __init__(
        self, wanted: Wanted, schema: Mapping[str, pl.DataType], path: Path, places: Places, *, text: bool
    ) -> None:
        self._wanted, self._path = wanted, path
        self._exprs: list[pl.Expr] = []
        self._rules: list[_Rule] = []
        for field in _declared(wanted.event):
            self._field(field, schema, text)
        for what, name in places.of().items():
            if name not in schema:
                raise UsageError(f"{path}: there is no column {name!r}; it has {', '.join(schema)}")
            self._exprs.append(_time_ms(pl.col(name), schema[name]).alias(what))
        self._bounds(TIMESTAMP if places.timestamp else None)
        self._own_rules = _has_rules_of_its_own(wanted.event)

    def check(self, frame: pl.DataFrame, first_row: int) -> tuple[pl.DataFrame, list[Reject]]:
        """The usable rows, by field names and in the event's types; and the others. first_row: number of the first."""
        typed = frame.select(self._exprs)
        for what in (PARTITION, OFFSET, TIMESTAMP):
            if what in typed.columns and typed[what].null_count():
                raise UsageError(f"{self._path}: a row has no {what[1:]}, or one that is no whole number")
        flags = typed.hstack(frame.select(pl.all().name.prefix("raw."))).select(
            rule.broken.fill_null(value=False).alias(str(place)) for place, rule in enumerate(self._rules)
        )
        good = np.ones(len(frame), dtype=np.bool_)
        rejects: list[Reject] = []
        broken = [place for place, any_ in enumerate(flags.select(pl.all().any()).row(0)) if any_] if len(frame) else []
        for place in broken:
            rows = np.flatnonzero(flags[str(place)].to_numpy() & good)
            good[rows] = False
            rejects += [self._reject(self._rules[place], frame, row, first_row) for row in rows.tolist()]
        if self._own_rules:
            rejects += self._by_the_events_own(typed, frame, good, first_row)
        if self._wanted.contract is not None:
            rejects += self._by_contract(self._wanted.contract, typed, frame, good, first_row)
        if not rejects:
            return typed, []
        return typed.filter(pl.Series(good)), sorted(rejects, key=lambda reject: reject.row)

    def _field(self, field: _Declared, schema: Mapping[str, pl.DataType], text: bool) -> None:
        name, column = field.name, field.column
        if column not in schema:
            if field.default is msgspec.NODEFAULT:
                raise UsageError(f"{self._path}: there is no column {column!r}; it has {', '.join(schema)}")
            self._exprs.append(pl.lit(field.default, dtype=_DTYPES[field.kind]).alias(name))
            return
        dtype, raw = schema[column], pl.col(column)
        typed = _typed(field, raw, dtype, text, is_time=name == self._wanted.time)
        if typed is None:
            raise UsageError(f"{self._path}: column {column!r} is {dtype}, the event says {field.kind}; cast it")
        said = pl.col(f"raw.{column}")
        if text and field.kind != "str":
            said = said.replace("", None)
        elif dtype.is_float() and field.nullable:
            said = said.fill_nan(None)
        expected = f"Expected `{field.kind}`, got "
        unfit = said.is_not_null() & pl.col(name).is_null()
        self._rules.append(_Rule(unfit, "decode", "invalid", expected + "{}", name))
        if field.kind == "float":
            finite = pl.col(name).is_infinite() if field.nullable else ~pl.col(name).is_finite()
            self._rules.append(_Rule(finite, "decode", "malformed", "{} is no number in JSON", name))
        if not field.nullable:
            self._rules.append(_Rule(pl.col(name).is_null(), "decode", "invalid", expected + "`null`", name))
        self._exprs.append(typed.alias(name))

    def _bounds(self, timestamp: str | None) -> None:
        wanted, rules = self._wanted, self._rules
        if wanted.time is not None:
            time = pl.col(wanted.time)
            rules.append(_Rule(time < 0, "time", "negative", "event time {} is before 1970", wanted.time))
            rules.append(_Rule(time > MAX_EXACT, "time", "out_of_range", "event time {} is out of range", wanted.time))
            if timestamp is not None:
                allowed = f"{wanted.max_skew_ms / 1000:.0f} s"
                ahead = f"event time {{}} is more than {allowed} ahead of the record's timestamp"
                rules.append(_Rule(time - pl.col(timestamp) > wanted.max_skew_ms, "time", "ahead", ahead, wanted.time))
        for name, dtype in wanted.numbers.items():
            value = pl.col(name)
            if dtype is np.float64:
                beyond = value.cast(pl.Float64).abs() > MAX_NUMBER
                reason = "beyond float32, which is what models and features hold"
                rules.append(_Rule(beyond, "decode", "out_of_range", reason, name))
            if name in wanted.inexact:
                reason = "names an entity and may be null: from 2**53 on it must be a text"
                rules.append(_Rule(value.abs() >= MAX_EXACT, "decode", "out_of_range", reason, name))
        for name in sorted(wanted.texts):
            length = pl.col(name).str.len_bytes() if name == wanted.key else pl.col(name).str.len_chars()
            rules.append(_Rule(length > MAX_KEY_CHARS, "key", "too_long", f"longer than {MAX_KEY_CHARS}", name))

    def _reject(self, rule: _Rule, frame: pl.DataFrame, row: int, first_row: int) -> Reject:
        values = frame.row(row, named=True)
        reason = rule.reason.replace("{}", repr(values.get(_column_of(self._wanted.event, rule.field))))
        return self._letter(values, row + first_row, rule.stage, rule.code, reason, rule.field)

    def _by_the_events_own(
        self, typed: pl.DataFrame, frame: pl.DataFrame, good: np.ndarray, first_row: int
    ) -> list[Reject]:
        """Bounds, literals and __post_init__ of the event type: row by row, as the stream does."""
        columns = {field.name: field.column for field in _declared(self._wanted.event)}
        rejects = []
        for row in np.flatnonzero(good).tolist():
            values = typed.row(row, named=True)
            try:
                msgspec.convert({column: values[name] for name, column in columns.items()}, self._wanted.event)
            except msgspec.ValidationError as error:
                reason, field = explained(str(error))
            except Exception as error:  # __post_init__ is the user's
                reason, field = f"{type(error).__name__}: {error}", ""
            else:
                continue
            good[row] = False
            raw = frame.row(row, named=True)
            rejects.append(self._letter(raw, row + first_row, "decode", "invalid", reason, field))
        return rejects

    def _by_contract(
        self, contract: Contract, typed: pl.DataFrame, frame: pl.DataFrame, good: np.ndarray, first_row: int
    ) -> list[Reject]:
        """What the rules of the source keep out of the stream: of the rows that are good in every other way."""
        rows, usable = np.flatnonzero(good), typed.filter(pl.Series(good))
        times = usable[self._wanted.time or ""].to_numpy()
        behind_ms = usable[TIMESTAMP].to_numpy() - times if TIMESTAMP in usable.columns else None
        judged = contract.judged(fields_of(self._wanted, usable), times, behind_ms)
        rejects = []
        for place in np.flatnonzero(judged.gone).tolist():
            row = int(rows[place])
            good[row] = False
            rejects.append(self._letter(frame.row(row, named=True), row + first_row, STAGE, *judged.why(place)))
        return rejects

    def _letter(self, values: dict[str, Any], row: int, stage: str, code: str, reason: str, field: str) -> Reject:
        value = orjson.dumps(values, default=str).decode()
        return Reject(self._wanted.topic, str(self._path), row, stage, code, reason, field, value)


def fields_of(wanted: Wanted, typed: pl.DataFrame) -> dict[str, Any]:
    """The fields of checked rows: numbers in their dtype, NaN for null, and lists of texts."""
    columns: dict[str, Any] = {name: typed[name].to_list() for name in wanted.texts}
    for name, dtype in wanted.numbers.items():
        series = typed[name]
        if dtype is np.float64:
            series = series.cast(pl.Float64).fill_null(float("nan"))
        columns[name] = series.to_numpy()
    return columns | {EXACT + name: typed[name].to_numpy() for name in wanted.exact}


_DTYPES: dict[str, Any] = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}


def _typed(field: _Declared, raw: pl.Expr, dtype: pl.DataType, text: bool, *, is_time: bool) -> pl.Expr | None:
    """The column in the type of its field, null where a value does not fit; None where none can."""
    if field.kind == "str":
        if text and not field.nullable:
            return raw.fill_null("")
        return raw.cast(pl.String) if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) else None
    if text:
        if field.kind == "bool":
            lower = raw.str.to_lowercase()
            return pl.when(lower.is_in(["true", "false"])).then(lower == "true")
        return _without_nan(field, raw.cast(_DTYPES[field.kind], strict=False))
    if field.kind == "bool":
        return raw.cast(pl.Boolean) if dtype in (pl.Boolean, pl.Null) else None
    if field.kind == "float":
        fits = dtype in _INTEGERS or dtype.is_float() or dtype.is_decimal() or dtype == pl.Null
        return _without_nan(field, raw.cast(pl.Float64)) if fits else None
    if is_time and dtype.is_temporal():
        return _time_ms(raw, dtype)
    if dtype.is_float():  # pandas keeps integers beside nulls so
        whole = pl.when(raw.is_finite() & (raw == raw.floor())).then(raw.cast(pl.Int64, strict=False))
        return pl.when(~raw.is_nan()).then(whole) if field.nullable else whole
    return raw.cast(pl.Int64, strict=False) if dtype in _INTEGERS or dtype == pl.Null else None


def _without_nan(field: _Declared, typed: pl.Expr) -> pl.Expr:
    """pandas writes null as NaN."""
    return typed.fill_nan(None) if field.kind == "float" and field.nullable else typed


def _time_ms(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return raw.dt.epoch("ms") if dtype.is_temporal() else raw.cast(pl.Int64, strict=False)


def _declared(event: type[Any]) -> list[_Declared]:
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    found = []
    for field in info.fields:
        members = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        kinds = {_kind(t) for t in members if not isinstance(t, msgspec.inspect.NoneType)}
        kind = next(kind for kind in ("float", "int", "bool", "str") if kind in kinds)
        default = field.default_factory() if callable(field.default_factory) else field.default
        nullable = any(isinstance(t, msgspec.inspect.NoneType) for t in members)
        found.append(_Declared(field.name, field.encode_name, kind, nullable, default))
    return found


def _column_of(event: type[Any], name: str) -> str:
    return next((field.column for field in _declared(event) if field.name == name), name)


def _kind(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.IntType):
        return "int"
    if isinstance(kind, msgspec.inspect.FloatType):
        return "float"
    return "bool" if isinstance(kind, msgspec.inspect.BoolType) else "str"


def _has_rules_of_its_own(event: type[Any]) -> bool:
    """Whether the event type asks for more than its fields' kinds."""
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    if hasattr(event, "__post_init__"):
        return True
    for field in info.fields:
        for kind in field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,):
            if isinstance(kind, msgspec.inspect.LiteralType):
                return True
            limits = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
            if any(getattr(kind, limit, None) is not None for limit in limits):
                return True
    return False
