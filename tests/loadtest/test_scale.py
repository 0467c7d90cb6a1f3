"""What `weir bench scale` makes of its turns; and processes that are kept to a share of a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.cap import MOST_CREDIT_S, Budget, capped, cpu_s
from loadtest.scale import SHARE, Scale, Turn

SCALE = Scale(
    (
        Turn(1, SHARE, 40_000.0, 10.0, 0.4),
        Turn(2, SHARE, 78_000.0, 11.0, 0.4),
        Turn(1, None, 100_000.0, 9.0, 1.1),
        Turn(2, None, 130_000.0, 12.0, 0.8),
        Turn(1, SHARE, 42_000.0, 9.0, 0.4),
        Turn(2, SHARE, 80_000.0, 10.0, 0.4),
        Turn(1, None, 104_000.0, 9.4, 1.1),
        Turn(2, None, 134_000.0, 12.2, 0.8),
    )
)


def test_two_are_compared_with_one_by_their_medians() -> None:
    assert SCALE.cost == pytest.approx(10.5 / 9.5)
    assert SCALE.gain == pytest.approx(132 / 102)
    assert SCALE.passed


def test_a_second_worker_that_costs_more_than_15_percent_fails_it() -> None:
    dear = [turn._replace(cpu_us_per_record=11.0) if turn[:2] == (2, SHARE) else turn for turn in SCALE.turns]
    assert not replace(SCALE, turns=tuple(dear)).passed
    assert "ABOVE 1.15" in replace(SCALE, turns=tuple(dear)).summary()


def test_the_report_names_every_kind_once(tmp_path: Path) -> None:
    assert [row[:2] for row in SCALE.as_rows()] == [
        ("0.4 of a core", "1"),
        ("0.4 of a core", "2"),
        ("peak", "1"),
        ("peak", "2"),
    ]
    report = SCALE.as_json()
    assert (report["cost_of_two"], report["peak_of_two"], report["passed"]) == (1.105, 1.294, True)
    assert len(report["turns"]) == 8
    SCALE.plot(tmp_path / "scale.svg")
    texts = [e.text for e in ElementTree.parse(tmp_path / "scale.svg").iter() if e.tag.endswith("text")]
    assert texts.count("2 × peak") == 2


def test_a_budget_lets_run_until_its_share_is_used_and_again_once_it_has_come_back() -> None:
    budget = Budget(0.4, now_s=0.0, used_s=5.0)
    assert budget.may_run(0.010, 5.000)  # 4 ms granted
    assert not budget.may_run(0.020, 5.010)  # 8 ms granted, 10 used
    assert not budget.may_run(0.024, 5.010)  # 9.6 ms granted
    assert budget.may_run(0.030, 5.010)


def test_a_budget_makes_up_for_what_was_overdrawn() -> None:
    budget = Budget(0.4, now_s=0.0, used_s=0.0)
    assert not budget.may_run(0.010, 0.020)  # two threads ran: 16 ms too much
    assert not budget.may_run(0.049, 0.020)
    assert budget.may_run(0.051, 0.020)


def test_a_budget_saves_up_no_more_than_a_moment() -> None:
    budget = Budget(0.4, now_s=0.0, used_s=0.0)
    assert budget.may_run(60.0, 0.0)
    assert budget.may_run(60.0, MOST_CREDIT_S - 0.001)
    assert not budget.may_run(60.0, MOST_CREDIT_S + 0.001)


def test_a_capped_process_uses_its_share_and_runs_freely_afterwards() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with capped([process], 0.2):
            began_s, used_s = time.monotonic(), cpu_s(process.pid)
            time.sleep(1.0)
            took_s, used_s = time.monotonic() - began_s, cpu_s(process.pid) - used_s
        # a busy machine may give it less, never more than one tick beyond what was saved up
        assert 0 < used_s <= 0.2 * took_s + MOST_CREDIT_S + 0.1
        assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
    finally:
        process.kill()
        process.wait()


def test_the_cpu_of_a_process_is_that_of_its_clock() -> None:
    assert cpu_s(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)
