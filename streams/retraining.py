"""From a retrain event to a candidate, a first champion, or a rejection: once for each event, whatever happens.

What makes it once: a version carries its event's id (`retrain`) in the registry, a deployment carries it as its cause,
and the event's folder says how often it was begun and how it ended. Each is looked for before it is made.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from models import rollout
from models.errors import ModelRefused
from models.rollout import Deployment, Version
from monitors.loop import RetrainEvent
from monitors.metrics import Metrics
from streams import release
from streams.errors import UsageError, WeirError
from streams.monitor import archive_folder
from streams.pipeline import Pipeline
from streams.routing import Routing, champion_of, fitting, patiently
from streams.settings import Settings
from streams.tracing import Step
from streams.training import as_plain
from streams.training_child import Child, Job, Result
from streams.training_folder import Done, Ending, TrainingFolder

log = structlog.get_logger(__name__)

ATTEMPTS = 2
"""An event whose training died once is taken up again, once."""
TRIES = 6
"""How often what may pass (a full disk, a model file that is away) is tried again before the event is rejected."""
_TAG = 4000
"""Characters of a tag in the registry."""


class NotNow(WeirError):
    """Nothing is wrong with the event: try again in a while."""


class Retraining:
    """Works off one event at a time: `begin`, then `poll` until it is done. Not for several threads.

    where: the pipeline, as on the command line, for the training process. again: how an outcome that was there already
    is told from one that was made (for tests and metrics).
    """

    def __init__(
        self,
        where: str,
        pipeline: Pipeline,
        settings: Settings,
        routing: Routing,
        metrics: Metrics,
        *,
        archive: Path | None = None,
        child: Callable[[Job], Child] = Child,
        wait_s: float = 10.0,
    ) -> None:
        self._where, self._pipeline, self._settings = where, pipeline, settings
        self._routing, self._metrics = routing, metrics
        self._root = settings.data_dir / "training" / pipeline.name
        self._archive = (archive or archive_folder(pipeline, settings)).absolute()
        self._make_child, self._wait_s = child, wait_s
        self.event: RetrainEvent | None = None
        self._child: Child | None = None
        self._result: Result | None = None
        self._judged_against: Version | None = None
        self._tries = 0
        self._step: Step | None = None

    @property
    def phase(self) -> str:
        """idle, training or judging."""
        if self.event is None:
            return "idle"
        return self._child.phase if self._child is not None else "judging"

    def begin(self, event: RetrainEvent, traceparent: bytes | None = None) -> None:
        """Takes an event up; `poll` does the rest. traceparent: of its record."""
        assert self.event is None
        self.event, self._result, self._tries = event, None, 0
        self._step = self._routing.tracer.step("train", parent=traceparent, retrain=event.id, reason=event.reason)

    def poll(self) -> Done | None:
        """Goes on with the event; how it ended, once it has. Blocks for seconds at most, apart from the registry.

        Raises RegistryError, WeirError (NotNow) or OSError: call again after a while, nothing is lost.
        """
        event = self.event
        assert event is not None
        folder = TrainingFolder(self._root, event.id)
        if self._child is not None:
            return self._follow(event, folder)
        if (done := folder.done) is not None:
            log.info("this retrain event was worked off before", retrain=event.id, ending=done.ending)
            return self._leave(done, "reused")
        if event.spec_hash != self._pipeline.spec.hash:
            ours = self._pipeline.spec.hash
            reason = f"the event is of feature spec {event.spec_hash}, the pipeline's is {ours}: its rows lack features"
            return self._reject(event, folder, None, (reason,))
        if (known := self._known(event)) is not None:
            return self._take_up(event, folder, *known)
        if self._result is not None:
            return self._conclude(event, folder, self._result)
        if folder.attempts >= ATTEMPTS:
            return self._reject(event, folder, None, (f"its training died {'twice' if ATTEMPTS == 2 else ATTEMPTS}",))
        folder.begin()
        try:
            self._start(event, folder)
        except OSError:  # no process, no memory: that was no attempt
            folder.unbegin()
            raise
        return None

    def stop(self) -> None:
        """Ends what runs, in order: it is taken up again at the next start, and this was no attempt."""
        if self._child is not None and self.event is not None:
            self._child.stop()
            self._child = None
            if self._result is None:
                TrainingFolder(self._root, self.event.id).unbegin()

    def _start(self, event: RetrainEvent, folder: TrainingFolder) -> None:
        self._judged_against = champion_of(self._routing.current, self._pipeline.spec.hash)
        seed = int(hashlib.sha256(f"{event.id}\0{self._seed}".encode()).hexdigest()[:8], 16) & 0x7FFFFFFF
        job = Job(
            self._where, event, str(self._archive), str(folder.path.absolute()),
            str((self._settings.data_dir / "models").absolute()), seed, self._judged_against, self._wait_s,
        )  # fmt: skip
        log.info("training", retrain=event.id, reason=event.reason, labels=event.labels, attempt=folder.attempts)
        self._child = self._make_child(job)

    @property
    def _seed(self) -> int:
        return self._pipeline.retrain.seed if self._pipeline.retrain else 7

    def _follow(self, event: RetrainEvent, folder: TrainingFolder) -> Done | None:
        assert self._child is not None
        died = self._child.poll()
        if died is None:
            return None
        child, self._child = self._child, None
        self._metrics.observe("weir_training_seconds", time.monotonic() - child.started_s)
        if child.result is None:
            log.error("training died", retrain=event.id, reason=died, attempt=folder.attempts)
            return None  # taken up again, or given up, by the attempts on disk
        if child.result.later:
            folder.unbegin()
            self._tries += 1
            if self._tries < TRIES:
                raise NotNow(child.result.later)
            self._result = Result(reasons=(child.result.later,))
        else:
            self._result = child.result
        return None  # what of it is made already, if a step failed before, is looked for first

    def _conclude(self, event: RetrainEvent, folder: TrainingFolder, result: Result) -> Done | None:
        """A result becomes a version, and a deployment."""
        if result.path and champion_of(self._routing.current, self._pipeline.spec.hash) != self._judged_against:
            log.info("another champion came meanwhile: judging again", retrain=event.id)
            self._result = None
            self._start(event, folder)
            return None
        if not result.path:
            return self._reject(event, folder, None, result.reasons)
        try:
            version = patiently(lambda: self._register(event, result))
        except UsageError as error:  # a worker could not serve it
            return self._reject(event, folder, None, (str(error),))
        if result.reasons:
            return self._reject(event, folder, version, result.reasons)
        return self._deploy(event, folder, version, result, "registered")

    def _register(self, event: RetrainEvent, result: Result) -> Version:
        assert result.path is not None
        found = {
            "retrain": event.id,
            "reason": event.reason,
            "verdict": "rejected" if result.reasons else "passed",
            "known_before": event.range.to,
            "gate": _tag(result),
            **({"drifts": ",".join(event.drifts)[:_TAG]} if event.drifts else {}),
            **result.lineage,
        }
        return release.register(self._pipeline, self._routing.registry, Path(result.path), found)

    def _known(self, event: RetrainEvent) -> tuple[Version, Result] | None:
        """The version that was made for this event before a crash, and what the gate said of it."""
        for found in patiently(lambda: self._routing.registry.versions(self._pipeline.model)):
            if found.lineage.get("retrain") == event.id:
                return found.version, _untag(found.lineage)
        return None

    def _take_up(self, event: RetrainEvent, folder: TrainingFolder, version: Version, result: Result) -> Done:
        log.info("this retrain event has a version already", retrain=event.id, version=version.version)
        if result.reasons:
            return self._reject(event, folder, version, result.reasons)
        return self._deploy(event, folder, version, result, "reused")

    def _deploy(self, event: RetrainEvent, folder: TrainingFolder, version: Version, result: Result, how: str) -> Done:
        current, spec_hash = self._routing.current, self._pipeline.spec.hash
        if (made := self._deployed(event)) is not None:
            cold = made.champion is not None and made.champion.version == version.version
            return self._finish(event, folder, version, "champion" if cold else "candidate", how)
        if version.version in [v.version for v in current.versions]:
            return self._reject(
                event, folder, version, (f"the training gave the model of version {version.version} again",)
            )
        evidence = as_plain(result.evidence)
        cold = champion_of(current, spec_hash) is None
        step = rollout.install if cold else rollout.add_candidate
        try:
            following = fitting(step(current, version, cause=event.id, evidence=evidence), spec_hash)
        except ModelRefused as error:
            return self._reject(event, folder, version, (str(error),))
        kind: Ending = "champion" if cold else "candidate"
        said = {"retrain": event.id, "version": version.version, "evidence": evidence}
        if not cold and current.candidate not in (None, version.version):
            said["instead_of"] = current.candidate  # which had not come to a decision
        trace = self._step.traceparent if self._step else None
        self._routing.change(following, kind, event.time, trace=trace, **said)
        self._metrics.inc("weir_rollouts_total", decision="promoted" if cold else "shadow")
        return self._finish(event, folder, version, kind, how)

    def _deployed(self, event: RetrainEvent) -> Deployment | None:
        history = patiently(lambda: self._routing.registry.history(self._pipeline.model))
        return next((deployment for deployment in history if deployment.cause == event.id), None)

    def _reject(
        self, event: RetrainEvent, folder: TrainingFolder, version: Version | None, reasons: tuple[str, ...]
    ) -> Done:
        name = version.version if version else None
        self._routing.tell("rejected", event.time, id=event.id, retrain=event.id, version=name, reasons=reasons)
        log.warning("rejected", retrain=event.id, version=name, reasons=list(reasons))
        done = Done(event.id, "rejected", name, reasons, event.time)
        folder.end(done)
        return self._leave(done, "rejected" if version else "failed")

    def _finish(self, event: RetrainEvent, folder: TrainingFolder, version: Version, ending: Ending, how: str) -> Done:
        done = Done(event.id, ending, version.version, (), event.time)
        folder.end(done)
        log.info("worked off", retrain=event.id, version=version.version, ending=ending)
        return self._leave(done, how)

    def _leave(self, done: Done, how: str) -> Done:
        self._metrics.inc("weir_trainings_total", result=how)
        if self._step is not None:
            self._step.end("; ".join(done.reasons) or None, outcome=done.ending, version=done.version or "")
        self.event = self._result = None
        return done


def _tag(result: Result) -> str:
    """The gate's evidence as text that the registry keeps; without the numbers where it takes no more."""
    said = json.dumps({"reasons": result.reasons, "evidence": as_plain(result.evidence)})
    return (
        said if len(said) <= _TAG else json.dumps({"reasons": [r[:300] for r in result.reasons[:10]], "evidence": {}})
    )


def _untag(lineage: dict[str, str]) -> Result:
    try:
        return msgspec.json.decode(lineage.get("gate", "{}"), type=Result)
    except msgspec.MsgspecError:
        rejected = lineage.get("verdict") == "rejected"
        return Result(reasons=("rejected when it was registered",) if rejected else ())
