"""Keeps processes to a share of a core, with no right that an ordinary user lacks: SIGSTOP and SIGCONT.

A control group's `cpu.max` would do the same, but only where the bench may make groups: not in most containers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

TICK_S = 0.005
"""A process of two busy threads overdraws twice as much at most; its next stop is as much longer."""

MOST_CREDIT_S = 0.04
"""Of CPU time that a process may have saved up while it waited: what `cpu.max` grants in 100 ms at 0.4 of a core."""


class Budget:
    """CPU seconds that a process may have used: `share` of the time that has gone by, but for what it let lapse."""

    def __init__(self, share: float, now_s: float, used_s: float) -> None:
        self._share, self._most_s = share, MOST_CREDIT_S
        self._seen_s, self._used_s = now_s, used_s
        self._credit_s = 0.0

    def may_run(self, now_s: float, used_s: float) -> bool:
        """Whether it may run from `now_s` (monotonic) on, when it has used `used_s` of CPU in its life."""
        self._credit_s += self._share * (now_s - self._seen_s) - (used_s - self._used_s)
        self._credit_s = min(self._credit_s, self._most_s)
        self._seen_s, self._used_s = now_s, used_s
        return self._credit_s > 0


@contextmanager
def capped(processes: Sequence[subprocess.Popen[bytes]], share: float) -> Iterator[None]:
    """Each of `processes`, all its threads together, uses `share` of a core until exit; then all run freely."""
    halt = threading.Event()
    keeper = threading.Thread(target=_keep, args=(processes, share, halt), name="cap", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        halt.set()
        keeper.join()
        for process in processes:
            _send(process, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond. Raises OSError where it has ended."""
    return time.clock_gettime((~pid << 3) | 2)  # Linux: the clock of another process


def _keep(processes: Sequence[subprocess.Popen[bytes]], share: float, halt: threading.Event) -> None:
    now_s = time.monotonic()
    budgets = {process.pid: (process, Budget(share, now_s, cpu_s(process.pid))) for process in processes}
    running = dict.fromkeys(budgets, True)
    while not halt.wait(TICK_S):
        for pid, (process, budget) in budgets.items():
            with suppress(OSError):  # it has ended: whoever watches it will say so
                may = budget.may_run(time.monotonic(), cpu_s(pid))
                if may != running[pid]:
                    _send(process, signal.SIGCONT if may else signal.SIGSTOP)
                    running[pid] = may


def _send(process: subprocess.Popen[bytes], what: signal.Signals) -> None:
    if process.returncode is None:  # not waited for, so its id is still its own
        with suppress(ProcessLookupError):
            os.kill(process.pid, what)
