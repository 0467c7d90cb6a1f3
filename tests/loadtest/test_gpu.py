"""The GPU bench: where CUDA is, its rows; where it is not, it says so and is done."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from loadtest import gpu
from loadtest.gpu import CPU, CUDA, Row, Size, Timed, run
from models.runner import starts


def test_two_providers_are_called_in_turns_on_the_same_rows_and_agree() -> None:
    said: list[str] = []
    size = Size("tiny", (16, 8), 2)
    rows = run(said.append, other=CPU, sizes=[size], batches=[1, 100], seconds=0.01)
    assert [(row.model, row.rows, row.difference) for row in rows] == [("tiny", 1, 0.0), ("tiny", 100, 0.0)]
    for row in rows:
        assert row.base.call_us > 0
        assert row.other.rows_per_s == pytest.approx(row.rows / row.other.call_us * 1e6)
    assert len(said) == 2


def test_a_row_says_how_many_times_as_fast_the_other_is() -> None:
    row = Row("1 MB", 1_000_000, 512, Timed(900.0, 568_889.0), Timed(300.0, 1_706_667.0), 1.5e-6)
    assert row.as_json()["times"] == 3.0
    assert row.as_json()["difference"] == 1.5e-06
    assert row.as_row()[-2:] == ("3.00 × as fast", "1.5e-06")


def test_a_cuda_that_is_there_but_does_not_start_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(gpu, "starts", lambda provider: False)
    assert gpu.why_not() == "no CUDA device: ONNX Runtime has CUDA, but it does not start here"
    monkeypatch.setattr(gpu, "starts", lambda provider: True)
    assert gpu.why_not() == ""


def test_the_command_reports_rows_or_says_that_there_is_no_device() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.gpu", "--json", "--seconds", "0.01"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mode"] == "gpu"
    if starts(CUDA):
        assert report["skipped"] is None
        assert len(report["results"]) == 12
    else:
        assert report["skipped"].startswith("no CUDA device: ")
        assert report["skipped"].endswith(": skipped")
        assert report["results"] == []
