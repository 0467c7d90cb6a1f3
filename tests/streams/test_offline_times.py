"""Values as of given times: what an event of that time would have had, never what came later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from streams import Pipeline
from streams.errors import UsageError
from streams.offline.backfill import Backfill
from streams.offline.entity_times import AtTimes
from streams.offline.files import file_input
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from tests.integration.shop import shop, wide_shop
from tests.integration.tape import Tape
from tests.parity.sides import inputs
from tests.streams.test_offline_backfill import HOUR, ROWS, grouped, pipeline, ruled, some_sales, written


def at_times(
    path: Path,
    table: pl.DataFrame,
    folder: Path,
    rows: int = 1000,
    of: Pipeline = pipeline,
    rejected: Callable[[list[Reject]], None] = pytest.fail,  # type: ignore[assignment]
) -> tuple[pl.DataFrame, AtTimes]:
    at = file_input("at", str(written(table, folder / "at.parquet")), "--at")
    given = {"payments": file_input("payments", str(path), "--input")}
    work = AtTimes(of, given, at, Reading(rows=rows), rejected)
    return pl.concat(work.frames()), work


def test_values_are_of_what_came_before_that_time(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "p.parquet")
    table = pl.DataFrame({"user": [7, 7, 7, 9, 8], "time": [HOUR + 5001, HOUR, HOUR + 5000, HOUR, 100 * HOUR]})
    found, work = at_times(path, table.with_columns(note=pl.Series(["e", "a", "c", "n", "z"])), tmp_path)
    #  ROWS of user 7:   1 h (tip 0.5)      1 h 5 s (no tip)      3 h
    #  reads:         a: at 1 h        c: at 1 h 5 s  e: 1 ms later
    assert found["note"].to_list() == ["a", "n", "c", "e", "z"]  # in the order of time
    assert found["feature.user_count_1h"].to_list() == [0.0, 0.0, 1.0, 2.0, 0.0]
    assert found["feature.user_mean_tip_1h"].to_list() == [None, None, 0.5, 0.5, None]
    assert found["feature.user_since_last"].to_list()[:4] == [None, None, 5.0, pytest.approx(0.001)]
    assert work.left_out == {"amount", "card", "country", "double"}
    assert (work.rows, work.events) == (5, 4)


def test_an_event_that_a_rule_keeps_out_of_the_stream_counts_at_no_time(tmp_path: Path) -> None:
    table = ROWS.with_columns(amount=pl.Series([1.0, 2.0, 30.0, 2.5]), tip=pl.lit(1.0), country=pl.lit("FR"))
    path = written(table.with_columns(ts=pl.Series([HOUR, HOUR + 1, HOUR + 2, HOUR + 3])), tmp_path / "p.parquet")
    times = pl.DataFrame({"user": [7, 7, 7], "time": [HOUR + 1, HOUR + 3, HOUR + 4]})
    rejects: list[Reject] = []
    found, _ = at_times(path, times, tmp_path, of=ruled, rejected=rejects.extend)
    assert found["feature.user_sum_amount_1h"].to_list() == [1.0, 1.0, 3.5]
    assert [(reject.row, reject.stage, reject.field) for reject in rejects] == [(3, "contract", "amount")]


def test_with_the_events_own_fields_all_features_are_there(tmp_path: Path) -> None:
    path = written(ROWS, tmp_path / "p.parquet")
    found, work = at_times(path, ROWS, tmp_path)
    assert work.left_out == set()
    assert found["feature.double"].to_list() == [3.0, 4.0, 6.5, 8.0]
    assert found["feature.country"].to_list() == ["DE", "FR", "IT", "DE"]


@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("made", [shop, wide_shop])
def test_at_the_events_own_times_it_is_what_the_events_had(
    tmp_path: Path, made: Callable[[Path, str, int], Tape], rows: int
) -> None:
    """In order of time, and one event an instant: else the two differ, for an event may come late."""
    tape = made(tmp_path, "shop", 300)
    files = inputs(tape, tmp_path)
    # One partition in the order of time: what an entity's time alone can say.
    for topic, given in files.items():
        table = pl.read_parquet(given.paths[0]).sort("ts", maintain_order=True).drop("_partition", "_offset")
        if topic.endswith("orders"):
            table = table.unique(["ts"], keep="first", maintain_order=True)
        table.write_parquet(given.paths[0])
    scored = pl.concat(Backfill(tape.pipeline, files, Reading(rows=rows), pytest.fail).frames())
    at = file_input("at", str(files[tape.pipeline.lead.topic].paths[0]), "--at")
    found = pl.concat(AtTimes(tape.pipeline, files, at, Reading(rows=rows), pytest.fail).frames())
    names = [f"feature.{name}" for name in tape.pipeline.spec.names]
    assert found.select("time", *names).equals(scored.select("time", *names))


def test_of_an_entity_alone_there_is_what_is_made_of_aggregates_and_of_the_time(tmp_path: Path) -> None:
    tape = wide_shop(tmp_path, "shop", 100)
    files = inputs(tape, tmp_path)
    lead = files[tape.pipeline.lead.topic].paths[0]
    table = pl.read_parquet(lead).select("user", time=pl.col("ts") + 1)
    at = file_input("at", str(written(table, tmp_path / "at.parquet")), "--at")
    work = AtTimes(tape.pipeline, files, at, Reading(), pytest.fail)
    found = pl.concat(work.frames())
    of_the_event = {"above", "country", "country_hashed", "user_country_count_30m"}
    assert work.left_out == of_the_event  # they need its amount or its country
    assert found["feature.share"].min() >= 0.0
    assert 0 <= found["feature.minute_of_day"].min() <= found["feature.minute_of_day"].max() < 1440
    alone = written(table.drop("user"), tmp_path / "alone.parquet")
    with pytest.raises(UsageError, match="it names no entity"):
        AtTimes(tape.pipeline, files, file_input("at", str(alone), "--at"), Reading(), pytest.fail)


@pytest.mark.parametrize("rows", [1000, 64])
def test_features_of_remote_groups_are_what_the_events_had(tmp_path: Path, rows: int) -> None:
    table = some_sales(300)
    path = str(written(table, tmp_path / "sales.parquet"))
    given, at = {"sales": file_input("sales", path, "--input")}, file_input("at", path, "--at")
    scored = pl.concat(Backfill(grouped, given, Reading(), pytest.fail).frames())
    found = pl.concat(AtTimes(grouped, given, at, Reading(rows=rows), pytest.fail).frames())
    names = [f"feature.{name}" for name in grouped.spec.names]
    assert found.select("time", *names).equals(scored.select("time", *names))
    assert found["feature.shop_count_1h"].n_unique() > 5


def test_how_far_events_lie_behind_others_before_them_is_said(tmp_path: Path) -> None:
    _, in_order = at_times(written(ROWS, tmp_path / "p.parquet"), ROWS, tmp_path)
    _, turned = at_times(written(ROWS.reverse(), tmp_path / "p.parquet"), ROWS, tmp_path)
    times = ROWS["ts"].to_list()
    assert (in_order.behind_ms, turned.behind_ms) == (0, max(times) - min(times))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pl.DataFrame({"user": [7]}), "there is no column 'ts' or 'time'"),
        (pl.DataFrame({"user": [7], "ts": ["1"]}), "column 'ts' is String; a time is in ms"),
        (pl.DataFrame({"who": [7], "ts": [1]}), r"it names no entity; give the columns \(user\)"),
        (pl.DataFrame({"user": [None], "ts": [1]}, schema={"user": pl.Int64, "ts": pl.Int64}), "a row has no user"),
        (pl.DataFrame({"user": [7], "ts": [None]}, schema={"user": pl.Int64, "ts": pl.Int64}), "a row has no time"),
    ],
)
def test_what_is_no_entity_and_time_is_wrong_use(tmp_path: Path, table: pl.DataFrame, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        at_times(written(ROWS, tmp_path / "p.parquet"), table, tmp_path)
