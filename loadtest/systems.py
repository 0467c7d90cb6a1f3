"""What is compared, and how each is started: a process of its own that scores one topic into another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from loadtest.valkey import Valkey
from streams.errors import UsageError

PIPELINE = "examples.payments.pipeline:pipeline"
STOP_S = 20.0


class Task(NamedTuple):
    """Score the first `records` of topic `input` into topic `output` as group `group`.

    `work` is a folder that all runs of a bench share; what the process says goes to `log`.
    """

    broker: str
    input: str
    output: str
    group: str
    model: Path
    records: int
    work: Path
    log: Path


@dataclass(frozen=True)
class System:
    """`run(task)` is the running process, ended on exit; `share` of the records is enough for a slow one."""

    name: str
    run: Callable[[Task], AbstractContextManager[subprocess.Popen[bytes]]]
    share: float = 1.0


@contextmanager
def _weir(guarantee: str, task: Task) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as users run it: state in Redis (a new one each run), features logged, metrics on."""
    with Valkey() as valkey:
        environment = {
            "WEIR_BROKER": task.broker,
            "WEIR_REDIS": valkey.url,
            "WEIR_HTTP": "127.0.0.1:0",
            "WEIR_DATA_DIR": str(task.work),
            "WEIR_LOG_LEVEL": "warning",
            "WEIR_GUARANTEE": guarantee,
        }
        with _process(["streams.cli", "worker", PIPELINE], environment, task.log) as process:
            yield process


@contextmanager
def _baseline(module: str, task: Task) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [f"loadtest.baselines.{module}"]
    for name in ("broker", "input", "output", "group", "model", "records"):
        arguments += [f"--{name}", str(getattr(task, name))]
    with _process(arguments, {}, task.log) as process:
        yield process


@contextmanager
def _process(
    arguments: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m` with `arguments`; on exit it is asked to stop, and killed if it does not."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env={**os.environ, **environment}, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


SYSTEMS = (
    System("weir", partial(_weir, "at_least_once")),  # as the loops beside it
    System("stock-faust", partial(_baseline, "stock_faust"), share=0.06),
    System("loop-python", partial(_baseline, "loop_python")),
    System("loop-compiled", partial(_baseline, "loop_compiled")),
)
MORE = (System("weir-exactly-once", partial(_weir, "exactly_once")),)
"""Measured where they are asked for."""


def select(names: str) -> tuple[System, ...]:
    """The systems named in `names`, separated by commas; empty = SYSTEMS. UsageError for an unknown one."""
    known = {system.name: system for system in (*SYSTEMS, *MORE)}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or [system.name for system in SYSTEMS]
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"no system {unknown[0]!r} to measure; there are {', '.join(known)}")
    return tuple(known[name] for name in wanted)
