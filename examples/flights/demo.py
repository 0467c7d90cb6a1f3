"""`weir demo`: a year of flights through Kafka, features, Redis, ONNX and the retraining loop, on this machine.

It begins without a model: what is logged and labelled becomes the first one, drift and age bring its successors. The
replay waits at one hour of each day until its blocks are closed and nothing is being trained or rolled out that would
take effect before: so every version serves the same events in every run, however fast the machine is. Everything runs
in processes of its own, except the monitor, which runs here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np

from examples.flights.children import ReplayProcess, Service
from examples.flights.data import data_folder, month_start
from examples.flights.loop import Following, Loop
from examples.flights.pipeline import pipeline
from examples.flights.tally import Outcome, Tally
from monitors.console import LiveView, View
from monitors.metrics import Metrics
from monitors.performance import RollingAuc, auc
from monitors.report import render
from streams import loop_folds
from streams.embedded import find_embedded, start_embedded
from streams.errors import WeirError
from streams.monitor import Monitor, archive_folder, monitor_group
from streams.settings import Settings, load_settings

COMPARED_FROM = 3
"""The month from which on the first model and its successors are compared: 2 months of the run are to settle in."""
PAUSE_HOUR = 5
"""By then every partition has had requests of the day, so that the block of the day before is closed."""
_COMMIT_MS = 20
_STALLED_S = 60.0
_TRAINING_S = 900.0
_VIEW_S = 0.25
_ASK_S = 0.02
_WEEK_EVENTS = 6000
"""About a week of flights: how often the curve of the AUC gets a point."""


@dataclass(frozen=True)
class Options:
    """months: (first, last) of 2013. speed: times real time, None = full. keep: leave the data directory."""

    months: tuple[int, int]
    speed: float | None
    output: Path
    keep: bool


class Demo:
    """One run. `run` returns its outcome, having written report.html."""

    def __init__(self, options: Options, live: LiveView) -> None:
        self._options, self._live = options, live
        self._data = options.output / "data"
        self._logs = options.output / "logs"
        self._tally, self._loop = Tally(), Loop()
        self._started = time.monotonic()
        self._replay_s = self._training_s = 0.0
        self._asked_s = 0.0

    def run(self) -> Outcome:
        """Raises WeirError; children are stopped in any case."""
        data_folder()
        settings, environment = self._prepare()
        with ExitStack() as stack:
            embedded = stack.enter_context(start_embedded(self._data))
            self._worker = Service("worker", self._logs / "worker.log", environment)
            stack.callback(self._worker.stop)
            self._replay = self._start_replay(embedded.broker)
            stack.callback(self._replay.stop)
            self._monitor = self._start_monitor(settings, embedded.broker, embedded.redis_url)
            stack.callback(self._monitor.close)
            self._following = Following(pipeline, settings, embedded.broker)
            stack.callback(self._following.close)
            self._trainer = Service("trainer", self._logs / "trainer.log", environment)
            stack.callback(self._trainer.stop)
            outcome = self._run()
        self._write(outcome)
        if not self._options.keep:
            shutil.rmtree(self._data)
        return outcome

    def _prepare(self) -> tuple[Settings, dict[str, str]]:
        """A fresh data directory; the settings of this process and the environment of the others."""
        if find_embedded(self._data) is not None:
            raise WeirError(f"a demo is running in {self._options.output}; choose another --output")
        if self._data.exists() and not (self._data / "embedded.lock").exists():
            raise WeirError(f"{self._data} exists and is not of a demo; choose another --output")
        shutil.rmtree(self._data, ignore_errors=True)
        shutil.rmtree(self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True)
        data = self._data.resolve()
        values = {
            "broker": "embedded",
            "redis": "embedded",
            "data_dir": str(data),
            "registry": f"sqlite:///{data}/registry.db",
            "guarantee": "at_least_once",
            "log_format": "json",
        }
        return load_settings(**values), {f"WEIR_{name.upper()}": value for name, value in values.items()}

    def _start_replay(self, broker: str) -> ReplayProcess:
        first, last = self._options.months
        arguments = [
            "--broker",
            broker,
            "--months",
            f"{first}-{last}",
            "--hold-back",
            monitor_group(pipeline),
        ]
        if self._options.speed is not None:
            arguments += ["--speed", str(self._options.speed)]
        arguments += ["--pause-before", str(first), "--pause-daily", str(PAUSE_HOUR)]
        return ReplayProcess(arguments, self._logs / "replay.log")

    def _start_monitor(self, settings: Settings, broker: str, redis_url: str) -> Monitor:
        monitor = Monitor(
            pipeline,
            settings,
            broker,
            redis_url,
            archive_folder(pipeline, settings),
            metrics=Metrics(),
            on_predictions=self._tally.on_predictions,
            on_joined=self._tally.on_joined,
            on_outcome=self._on_outcome,
            commit_ms=_COMMIT_MS,
        )
        while not monitor.connect():
            time.sleep(0.1)
        return monitor

    def _run(self) -> Outcome:
        view = self._live.view
        view.phase = "starting"
        self._wait(lambda: self._replay.progress.state == "paused", "the replay does not start")
        self._wait(self._worker.ready, "the worker does not start")
        self._wait(self._trainer.ready, "the trainer does not start")
        self._tally.rolling = RollingAuc()
        self._replay.go_on()
        self._pump()
        view.phase = "report"
        self._monitor.close(finished=True)
        return self._outcome()

    def _pump(self) -> None:
        """Monitors until the replay is done and everything it has sent is predicted, joined and dealt with."""
        started = time.monotonic()
        meter = _Meter(self._replay, self._monitor, self._tally, self._live, self._options)
        quiet, working_s = 0, 0.0
        while True:
            quiet = 0 if self._step() else quiet + 1
            working_s = self._follow(working_s, meter)
            still_s = meter.update(self._loop)
            state = self._replay.progress.state
            if still_s > (_TRAINING_S if self._loop.open else _STALLED_S):
                if state != "done":
                    raise WeirError(f"nothing has moved for {still_s:.0f} s: {self._waiting()} (see {self._logs})")
                self._live.note("predictions are missing")
                break
            if state == "running" or self._monitor.predictions < self._replay.progress.sent[0]:
                continue
            if state == "done":
                if quiet >= 5:
                    break
            elif self._at_rest(self._replay.progress.time):
                self._replay.go_on()
                meter.moved()
        self._replay_s = time.monotonic() - started - self._training_s

    def _at_rest(self, paused_ms: int) -> bool:
        """Whether the blocks of the days before a pause are closed, and what they brought has taken effect."""
        loop = self._loop
        if paused_ms > month_start(self._options.months[0]) and loop.closed_ms < paused_ms - PAUSE_HOUR * 3_600_000:
            return False
        now = time.monotonic()
        if not loop.moves:
            return True
        if now - self._asked_s < _ASK_S:
            return False
        self._asked_s = now
        worker, trainer = self._worker.status(), self._trainer.status()
        if worker is not None and worker.get("refused"):
            raise WeirError(f"the worker refuses the model: {worker['refused']}")
        return loop.settled(trainer, worker)

    def _follow(self, working_s: float, meter: _Meter) -> float:
        """Says what the trainer has done, and keeps the time that it works. working_s: since when; 0 = it does not."""
        for text in self._loop.on_records(*self._following.read()):
            self._live.note(text)
            meter.moved()
        working, now = self._loop.open is not None, time.monotonic()
        if working_s and not working:
            self._training_s += now - working_s
        return (working_s or now) if working else 0.0

    def _on_outcome(self, outcome: loop_folds.Outcome) -> None:
        for text in self._loop.on_outcome(outcome):
            self._live.note(text)

    def _waiting(self) -> str:
        for service in (self._worker, self._trainer):
            if service.status() is None:
                return f"the {service.role} does not answer"
        return f"the worker says {self._worker.status()}, the trainer {self._trainer.status()}"

    def _step(self) -> int:
        for service in (self._worker, self._trainer):
            if service.tend(time.monotonic()):
                self._live.note(f"the {service.role} died and is started again")
        self._replay.check()
        return self._monitor.poll(0.01)

    def _wait(self, what: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _STALLED_S
        while not what():
            if time.monotonic() > deadline:
                raise WeirError(f"{otherwise} (see {self._logs})")
            self._step()
            self._live.update()
            time.sleep(0.1)

    def _outcome(self) -> Outcome:
        monitor, tally, champion = self._monitor, self._tally, self._loop.champion
        return Outcome(
            months=self._options.months,
            sent=list(self._replay.progress.sent),
            predictions=monitor.predictions,
            unscored=monitor.unscored,
            dead_letters=monitor.dead_letters,
            labels=monitor.counts.matched,
            duplicated=monitor.duplicates,
            duration_s=time.monotonic() - self._started,
            replay_s=self._replay_s,
            training_s=self._training_s,
            restarts=self._worker.restarts + self._trainer.restarts,
            loop=self._loop,
            latency_s=tally.latencies(self._replay.sent_at),
            scored=tally.scored(),
            compare_from=month_start(max(COMPARED_FROM, self._options.months[0])),
            importance=tally.importance(pipeline, _file(champion.uri)) if champion and tally.sample else [],
        )

    def _write(self, outcome: Outcome) -> None:
        last = self._options.months[1]
        compared = span(COMPARED_FROM, last) if last > COMPARED_FROM else "too short to compare"
        page = render(outcome.report(compared))
        (self._options.output / "report.html").write_text(page, encoding="utf-8")


def _file(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


class _Meter:
    """Brings the live view up to date, and notices when nothing moves any more."""

    def __init__(self, replay: ReplayProcess, monitor: Monitor, tally: Tally, live: LiveView, options: Options) -> None:
        self._replay, self._monitor, self._tally, self._live = replay, monitor, tally, live
        first, last = options.months
        self._begin, self._end = month_start(first), month_start(last + 1)
        self._shown = self._moved = time.monotonic()
        self._sent = replay.sent
        self._seen = -1
        self._rates: list[float] = list(live.view.history.get("events/s", ()))
        self._aucs: list[float] = []
        self._next_auc = _WEEK_EVENTS

    def moved(self) -> None:
        """Something has moved that the counts do not show."""
        self._moved = time.monotonic()

    def update(self, loop: Loop) -> float:
        """Returns how many seconds ago something moved."""
        now = time.monotonic()
        if now - self._shown < _VIEW_S:
            return now - self._moved
        view, monitor, progress = self._live.view, self._monitor, self._replay.progress
        rate = (self._replay.sent - self._sent) / (now - self._shown)
        view.rate = rate if view.rate is None else 0.8 * view.rate + 0.2 * rate
        self._sent, self._shown = self._replay.sent, now
        seen = monitor.predictions + monitor.duplicates + self._replay.sent
        if seen != self._seen:
            self._seen, self._moved = seen, now
        latencies = self._tally.latencies(self._replay.sent_at, latest=500)
        if len(latencies):
            view.latency_p50, view.latency_p99 = np.quantile(latencies, (0.5, 0.99)).tolist()
        if progress.time:
            view.date = f"{datetime.fromtimestamp(progress.time / 1000, UTC):%d %b %Y}"
            view.done = min(max((progress.time - self._begin) / (self._end - self._begin), 0.0), 1.0)
        view.lag = max(0, progress.sent[0] - monitor.predictions)
        view.predictions, view.unscored = monitor.predictions, monitor.unscored
        view.labels, view.dead_letters = monitor.counts.matched, monitor.dead_letters
        view.duplicated = monitor.duplicates
        view.phase = "training" if loop.open else "replaying"
        view.champion, view.loop = loop.champion.version if loop.champion else None, loop.state
        view.drifts, view.retrains = len(loop.drifts), len(loop.retrains)
        view.promotions = len(loop.promotions)
        self._curves(view)
        self._live.update()
        return now - self._moved

    def _curves(self, view: View) -> None:
        self._rates = [*self._rates, view.rate or 0.0][-200:]
        view.history["events/s"] = self._rates[::-4][::-1]
        tally = self._tally
        if tally.rolling is not None:
            view.auc = tally.rolling.get()
        while len(tally.times) >= self._next_auc:
            block = slice(self._next_auc - _WEEK_EVENTS, self._next_auc)
            found = auc(np.array(tally.labels[block]), np.array(tally.scores[block]))
            self._aucs += [] if found is None else [found]
            self._next_auc += _WEEK_EVENTS
            view.history["AUC by week"] = self._aucs


def span(first: int, last: int) -> str:
    """ "March to December" """
    names = [f"{datetime(2013, month, 1, tzinfo=UTC):%B}" for month in dict.fromkeys((first, last))]
    return (" to " if last - first > 1 else " and ").join(names)
