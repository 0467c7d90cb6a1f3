"""What is compared, and how each is started: a process of its own that scores one topic into another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.valkey import Valkey
from streams.errors import UsageError, WeirError
from streams.kafka import consumer_config, producer_config
from streams.loading import load_pipeline
from streams.parts import parts_of
from streams.settings import load_settings

PIPELINE = "examples.payments.pipeline:pipeline"
STOP_S = 20.0


class Task(NamedTuple):
    """Score the first `records` of topic `input` into topic `output` as group `group`.

    `work` is a folder that all runs of a bench share; what the process says goes to `log`. `http` is where Weir
    serves its metrics, `traces` where it sends the spans of sampled records (OTLP over HTTP; nowhere if empty). With
    `prompt` a loop takes what has come instead of waiting for a full batch, and has the client settings of Weir: for
    latency.
    """

    broker: str
    input: str
    output: str
    group: str
    model: Path
    records: int
    work: Path
    log: Path
    http: str = "127.0.0.1:0"
    prompt: bool = False
    traces: str = ""

    def failed(self, name: str, error: WeirError) -> WeirError:
        """`error` of the system `name`, with the last that its process said."""
        said = " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-5:]) if self.log.exists() else ""
        return WeirError(f"{name}: {error}{': ' if said else ''}{said}")


@dataclass(frozen=True)
class System:
    """`run(task)`: the running processes, the one that scores first, ended on exit; `share` of the records is enough
    for a slow one. pipeline: that Weir runs.
    """

    name: str
    run: Callable[[Task], AbstractContextManager[Sequence[subprocess.Popen[bytes]]]]
    share: float = 1.0
    pipeline: str = PIPELINE

    @property
    def is_weir(self) -> bool:
        return self.name.startswith("weir")


@contextmanager
def weir(
    guarantee: str, task: Task, code: Path | None = None, pipeline: str = PIPELINE
) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """A worker as users run it: state in Redis (a new one each run), features logged, metrics on; and one of each
    remote group.

    code: the folder whose packages it runs; None = those of this process.
    """
    with Valkey() as valkey, ExitStack() as running:
        environment = {
            "WEIR_BROKER": task.broker,
            "WEIR_REDIS": valkey.url,
            "WEIR_DATA_DIR": str(task.work),
            "WEIR_LOG_LEVEL": "warning",
            "WEIR_GUARANTEE": guarantee,
            **({"OTEL_EXPORTER_OTLP_ENDPOINT": task.traces} if task.traces else {}),
        }
        processes = []
        for part in sorted(parts_of(load_pipeline(pipeline)), key=lambda part: not part.scores):
            arguments, log = ["streams.cli", "worker", pipeline], task.log
            if part.group is not None:
                arguments += ["--group", part.group.name]
            if not part.scores:
                log = log.with_suffix(f".{part.group.name if part.group else 'sources'}.log")
            http = {"WEIR_HTTP": task.http if part.scores else "127.0.0.1:0"}
            processes.append(running.enter_context(_process(arguments, environment | http, log, code)))
        yield processes


@contextmanager
def _baseline(module: str, task: Task) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    arguments = [f"loadtest.baselines.{module}"]
    for name in ("broker", "input", "output", "group", "model", "records"):
        arguments += [f"--{name}", str(getattr(task, name))]
    if task.prompt:
        consumer, producer = _weirs_clients(task)
        arguments += ["--prompt", "--consumer", json.dumps(consumer), "--producer", json.dumps(producer)]
    with _process(arguments, {}, task.log) as process:
        yield [process]


def _weirs_clients(task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of Weir's settings of consumer and producer those that decide when a record comes and goes."""
    consumer = consumer_config(load_settings(broker=task.broker), {}, task.group)
    timing = ("isolation.level", "fetch.wait.max.ms", "fetch.queue.backoff.ms", "queued.max.messages.kbytes")
    return {name: consumer[name] for name in timing}, producer_config({})


@contextmanager
def _process(
    arguments: list[str], environment: Mapping[str, str], log: Path, code: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m` with `arguments`; on exit it is asked to stop, and killed if it does not."""
    found = {**os.environ, **environment, **({"PYTHONPATH": str(code)} if code else {})}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=found, cwd=code, stdout=said, stderr=said
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


def _weir(name: str, guarantee: str = "at_least_once", pipeline: str = PIPELINE) -> System:
    """At least once, as the loops beside it, where nothing else is said."""
    return System(name, partial(weir, guarantee, pipeline=pipeline), pipeline=pipeline)


SYSTEMS = (
    _weir("weir"),
    System("stock-faust", partial(_baseline, "stock_faust"), share=0.06),
    System("loop-python", partial(_baseline, "loop_python")),
    System("loop-compiled", partial(_baseline, "loop_compiled")),
)
EXACTLY_ONCE = _weir("weir-exactly-once", "exactly_once")
GROUPS = tuple(_weir(f"weir-{kind}", pipeline=f"loadtest.merchants:{kind}") for kind in ("read", "exact"))
"""As many features, some of them of a remote group: read through Redis, or exact."""
MORE = (EXACTLY_ONCE, *GROUPS)
"""Measured where they are asked for."""

LATENCY = (SYSTEMS[0], EXACTLY_ONCE, *SYSTEMS[2:])
"""Compared by latency: stock Faust's batches by time are no match for the others."""


def select(
    names: str, default: Sequence[System] = SYSTEMS, known: Sequence[System] = (*SYSTEMS, *MORE)
) -> tuple[System, ...]:
    """The systems named in `names`, separated by commas; empty = `default`. UsageError for one not `known`."""
    by_name = {system.name: system for system in known}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or [system.name for system in default]
    if unknown := [name for name in wanted if name not in by_name]:
        raise UsageError(f"no system {unknown[0]!r} to measure; there are {', '.join(by_name)}")
    return tuple(by_name[name] for name in wanted)
