"""`weir demo`: a year of flights through Kafka, features, Redis and ONNX on this machine.

The replay of the first two months is not scored: its logged features and labels train the model that then
scores the rest. Everything runs in processes of its own, except the monitor, which runs here.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from examples.flights.children import ReplayProcess, Training, Worker
from examples.flights.data import data_folder, month_start
from examples.flights.pipeline import pipeline
from examples.flights.tally import Outcome, Tally
from monitors.console import LiveView, View
from monitors.metrics import Metrics
from monitors.performance import RollingAuc, auc
from monitors.report import render
from streams.embedded import find_embedded, start_embedded
from streams.errors import WeirError
from streams.monitor import Monitor, archive_folder, monitor_group
from streams.settings import Settings, load_settings

TRAINING_MONTHS = 2
SEED = 7
_COMMIT_MS = 20
_STALLED_S = 60.0
_VIEW_S = 0.25
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
        self._tally = Tally()
        self._started = time.monotonic()
        self._replay_s = self._training_s = 0.0
        first, last = options.months
        self._cut = first + TRAINING_MONTHS if last - first >= TRAINING_MONTHS else None

    def run(self) -> Outcome:
        """Raises WeirError; children are stopped in any case."""
        data_folder()
        settings, environment = self._prepare()
        with ExitStack() as stack:
            embedded = stack.enter_context(start_embedded(self._data))
            port = int(environment["WEIR_HTTP"].rpartition(":")[2])
            self._worker = Worker(self._logs / "worker.log", environment, port)
            stack.callback(self._worker.stop)
            self._replay = self._start_replay(embedded.broker)
            stack.callback(self._replay.stop)
            self._monitor = self._start_monitor(settings, embedded.broker)
            stack.callback(self._monitor.close)
            outcome = self._phases(environment)
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
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            http = f"127.0.0.1:{probe.getsockname()[1]}"
        data = self._data.resolve()
        values = {
            "broker": "embedded",
            "redis": "embedded",
            "data_dir": str(data),
            "registry": f"sqlite:///{data}/registry.db",
            "guarantee": "at_least_once",
            "http": http,
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
        for month in filter(None, (first, self._cut)):
            arguments += ["--pause-before", str(month)]
        return ReplayProcess(arguments, self._logs / "replay.log")

    def _start_monitor(self, settings: Settings, broker: str) -> Monitor:
        monitor = Monitor(
            pipeline,
            settings,
            broker,
            archive_folder(pipeline, settings),
            metrics=Metrics(),
            on_predictions=self._tally.on_predictions,
            on_joined=self._tally.on_joined,
            commit_ms=_COMMIT_MS,
        )
        while not monitor.connect():
            time.sleep(0.1)
        return monitor

    def _phases(self, environment: dict[str, str]) -> Outcome:
        first, last = self._options.months
        view, model = self._live.view, None
        view.phase = "starting"
        self._wait(
            lambda: self._replay.progress.state == "paused" and self._worker.ready(), "the worker does not start"
        )
        self._replay.go_on()
        if self._cut is None:
            self._live.note(f"fewer than {TRAINING_MONTHS + 1} months: nothing is scored, only features are logged")
            self._pump(f"replaying {span(first, last)} unscored", "done")
        else:
            self._pump(f"replaying {span(first, self._cut - 1)} unscored", "paused")
            self._live.note(f"{span(first, self._cut - 1)} replayed: {self._monitor.predictions:,} predictions")
            model = self._train(environment)
            self._replay.go_on()
            self._pump(f"scoring {span(self._cut, last)}", "done")
        view.phase = "report"
        self._monitor.close(finished=True)
        return self._outcome(model)

    def _pump(self, phase: str, until: str) -> None:
        """Monitors until the replay says `until` and everything it has sent is predicted and joined."""
        self._live.view.phase, self._live.view.rate = phase, None
        started = time.monotonic()
        meter = _Meter(self._replay, self._monitor, self._tally, self._live, self._options)
        quiet = 0
        while (
            self._replay.progress.state != until
            or self._monitor.predictions < self._replay.progress.sent[0]
            or quiet < 5
        ):
            quiet = 0 if self._step() else quiet + 1
            still_s = meter.update()
            if still_s > _STALLED_S:
                if self._replay.progress.state != until:
                    raise WeirError(f"nothing has moved for {still_s:.0f} s: {self._waiting()} (see {self._logs})")
                self._live.note("predictions are missing")
                break
        self._replay_s += time.monotonic() - started
        self._monitor.flush()

    def _waiting(self) -> str:
        status = self._worker.status()
        return "the worker does not answer" if status is None else f"the worker says {status}"

    def _step(self) -> int:
        if self._worker.tend(time.monotonic()):
            self._live.note("the worker died and is started again")
        self._replay.check()
        return self._monitor.poll(0.01)

    def _train(self, environment: dict[str, str]) -> dict[str, Any]:
        """Trains on the archive, deploys, and waits until the worker scores with it."""
        view = self._live.view
        view.phase, view.rate = "training", None
        training = Training(self._logs / "training.log", environment, SEED)
        try:
            self._tally.rolling = RollingAuc()
            while (report := training.report()) is None:
                self._step()
                view.date = f"{training.seconds:.0f} s"
                self._live.update()
                time.sleep(0.1)
        finally:
            training.stop()
        reached = report["metrics"].get("auc")
        quality = f", AUC {reached:.3f} held out" if reached else ""
        self._live.note(f"trained on {report['rows']:,} events in {training.seconds:.0f} s{quality}")
        view.phase = "deploying"
        self._wait(lambda: self._deployed(report["deployment"]), "the worker does not take up the model")
        self._live.note(f"{report['model']} version {report['version']} is champion")
        self._training_s = training.seconds
        return report

    def _deployed(self, deployment: str) -> bool:
        status = self._worker.status()
        if status is not None and status.get("refused"):
            raise WeirError(f"the worker refuses the model: {status['refused']}")
        return status is not None and status["deployment"] == deployment

    def _wait(self, what: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _STALLED_S
        while not what():
            if time.monotonic() > deadline:
                raise WeirError(f"{otherwise} (see {self._logs})")
            self._step()
            self._live.update()
            time.sleep(0.1)

    def _outcome(self, model: dict[str, Any] | None) -> Outcome:
        monitor, tally = self._monitor, self._tally
        times, labels, scores = tally.arrays()
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
            restarts=self._worker.restarts,
            model=model,
            latency_s=tally.latencies(self._replay.sent_at),
            times=times,
            label_values=labels,
            scores=scores,
            importance=tally.importance(pipeline, Path(model["path"])) if model and tally.sample else [],
        )

    def _write(self, outcome: Outcome) -> None:
        first, last = self._options.months
        scored, trained = (span(self._cut, last), span(first, self._cut - 1)) if self._cut else ("", "")
        page = render(outcome.report(scored, trained))
        (self._options.output / "report.html").write_text(page, encoding="utf-8")


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

    def update(self) -> float:
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
