"""`weir run` keeps a pipeline's processes: starts them, starts them again, and stops them in order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.supervisor import Role

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline_that_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A pipeline file that ends its process with the code in the variable CODE, after noting that it ran."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    code = "import os\nopen('runs', 'a').write('x')\nos._exit(int(os.environ['CODE']))\n"
    path = tmp_path / "ends.py"
    path.write_text(code)
    return str(path)


def tend_until(role: Role, runs: int, now_s: float = 0.0) -> int | None:
    """Tends `role`, each time a minute later, until it has been started `runs` times and gave a code or a pause."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = role.tend(now_s)
        if found is not None or (Path("runs").exists() and len(Path("runs").read_text()) >= runs):
            return found
        now_s += 60
        time.sleep(0.05)
    raise AssertionError("the process was not started in time")


def test_a_process_that_fails_is_started_again(pipeline_that_ends: str) -> None:
    role = Role("worker", pipeline_that_ends, {"CODE": "1"})
    assert tend_until(role, runs=2) is None
    role.wait(10)


@pytest.mark.parametrize("code", [0, 2])
def test_a_process_that_is_done_or_wrongly_used_is_not_started_again(code: int, pipeline_that_ends: str) -> None:
    role = Role("worker", pipeline_that_ends, {"CODE": str(code)})
    assert tend_until(role, runs=2) == code
    assert Path("runs").read_text() == "x"


def test_a_failing_process_is_started_after_a_pause(pipeline_that_ends: str) -> None:
    role = Role("worker", pipeline_that_ends, {"CODE": "1"})
    role.tend(0.0)
    deadline = time.monotonic() + 60
    while not Path("runs").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # it notes its run just before it ends
    for _ in range(5):
        role.tend(0.5)  # found dead at 0.5 s: due at 1.5 s
    assert Path("runs").read_text() == "x"
    assert tend_until(role, runs=2, now_s=2.0) is None
    role.wait(10)


def test_a_process_that_follows_its_parent_ends_when_the_parent_is_gone(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "from streams.supervisor import end_with_parent\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.stdin.close()  # what the kernel does when the parent dies
    assert child.wait(10) == 7
    child.stdout.close()
