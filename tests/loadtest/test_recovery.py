"""What `weir bench recovery` makes of a worker's log and of latencies; and a short one, on real servers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.recovery import (
    CALM_SLOTS,
    COLUMNS,
    LEAST_LIMIT_MS,
    Kill,
    Recovery,
    calm_from,
    median,
    milestones,
    on_time_limit_ms,
    run,
)
from streams.errors import WeirError

T0 = 1_800_000_000.0


def line(after_s: float, event: str, **values: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": datetime.fromtimestamp(T0 + after_s, UTC).isoformat(), **values}


LOG = [
    line(2.0, "deployment in use"),
    line(3.0, "state found in the store", partition=0, replay=100),
    line(3.1, "state found in the store", partition=1, replay=50),
    line(3.4, "partition ready", partition=0, recovery_s=0.5),
    line(3.5, "deployment in use"),
    line(3.6, "partition ready", partition=1, recovery_s=0.5),
]


def test_milestones_are_those_of_the_slowest_partition() -> None:
    found = milestones(LOG, 2)
    assert [found.model_s - T0, found.group_s - T0, found.ready_s - T0] == pytest.approx([2.0, 3.1, 3.6])
    assert (found.replayed, found.rebuilt) == (150, False)


def test_state_that_is_rebuilt_is_told_from_state_that_was_there() -> None:
    rebuilt = line(3.0, "new incarnation: feature state is rebuilt from the log", partition=0, records=1000)
    assert milestones([rebuilt, *LOG], 2)[-2:] == (1150, True)


def test_a_log_without_a_partition_is_an_error() -> None:
    with pytest.raises(WeirError, match="2 of 3 partitions"):
        milestones(LOG, 3)


def test_on_time_is_twice_what_was_usual() -> None:
    usual = dict.fromkeys(range(99), 200) | {99: 5000, 100: 9000}
    assert on_time_limit_ms(usual, 100) == 400
    assert on_time_limit_ms(dict.fromkeys(range(50), 10), 100) == LEAST_LIMIT_MS


def test_the_backlog_is_gone_with_the_first_slot_after_which_nothing_is_late_for_a_while() -> None:
    # slot:  0 … 9 late | 10 … 14 on time | 15 late | 16 … on time
    worst = dict.fromkeys(range(60), 100) | dict.fromkeys([*range(10), 15], 2000)
    assert calm_from(worst, 0, 300) == 16
    assert calm_from(worst, 20, 300) == 20
    assert calm_from({slot: ms for slot, ms in worst.items() if slot < 16 + CALM_SLOTS}, 0, 300) is None


def test_what_is_late_after_the_calm_does_not_undo_it() -> None:
    worst = dict.fromkeys(range(60), 100) | {0: 2000, 50: 2000}
    assert calm_from(worst, 0, 300) == 1


def kill(redis: str, ready_s: float) -> Kill:
    return Kill(redis, 1.0, 2.0, 2.5, ready_s, ready_s + 0.1, ready_s + 1, 1000, 250)  # type: ignore[arg-type]


KILLS = (kill("whole", 3.0), kill("wiped", 9.0), kill("whole", 4.0), kill("wiped", 7.0), kill("whole", 3.5))


def report(lost: int = 0, duplicated: int = 0) -> Recovery:
    return Recovery(100, 400, 50.0, 4, 100, KILLS, 5000, lost, duplicated)


def test_the_report_has_every_kill_and_the_medians() -> None:
    found = report().as_json()
    assert [k["ready_s"] for k in found["kills"]] == [3.0, 9.0, 4.0, 7.0, 3.5]
    assert {redis: m["ready_s"] for redis, m in found["medians"].items()} == {"whole": 3.5, "wiped": 8.0}
    assert found["passed"]
    assert median(KILLS[:1]) == KILLS[0]


def test_the_table_tells_what_each_step_added() -> None:
    rows = report().as_rows()
    assert [row[1] for row in rows] == ["1", "2", "3", "median", "1", "2", "median"]
    assert dict(zip(COLUMNS, rows[0], strict=True)) == {
        "Redis": "whole",
        "kill": "1",
        "process": "1.00",
        "model": "1.00",
        "group": "0.50",
        "state": "0.50",
        "= ready": "3.00",
        "all write": "3.10",
        "on time": "4.00",
        "replayed": "1,000",
    }


def test_one_lost_or_doubled_prediction_fails_it() -> None:
    assert not report(lost=1).passed
    assert not report(duplicated=1).passed


@pytest.mark.integration
@pytest.mark.slow
def test_a_killed_worker_comes_back_with_all_of_its_state_however_redis_fared() -> None:
    said: list[str] = []
    found = run(said.append, entities=500, each=2, per_s=300.0, kills=1, partitions=2, settle_s=1.0)
    assert [k.redis for k in found.kills] == ["whole", "wiped"]
    for k in found.kills:
        assert 0 < k.process_s <= k.model_s <= k.group_s <= k.ready_s
        assert k.process_s < k.all_write_s <= k.on_time_s
    whole, wiped = found.kills
    assert wiped.replayed > whole.replayed
    assert wiped.replayed >= found.records == 1000
    assert found.rows == 500
    assert (found.lost, found.duplicated) == (0, 0)
    assert found.predictions > 1000
    assert found.passed
