"""What the training process does: hold out the newest rows of the archive, train on the rest, judge by the newest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import structlog

from models import gate
from models.dataset import Dataset, split_newest
from models.errors import DatasetError, ModelError, ModelFailed, ModelRefused, ModelUnavailable
from models.files import fetch, sha256_of, write_atomically
from models.gate import Gate
from models.runner import Runner
from streams.errors import WeirError
from streams.loading import load_pipeline
from streams.training import FULL, as_plain, fit, iso, lineage, read_dataset
from streams.training_child import Job, Result

if TYPE_CHECKING:
    from models.trainer import Epoch
    from streams.pipeline import Pipeline

log = structlog.get_logger(__name__)

_LOOK_S = 0.5
_DAY_MS = 86_400_000


class _Made(msgspec.Struct, frozen=True):
    """A training that is done: its model lies beside this record, and need not be made again."""

    digest: str
    seed: int
    sha256: str
    lineage: dict[str, str | int | float]


def work(job: Job, say: Callable[[str], object]) -> Result:
    """Trains and judges. say: is told when judging begins. What goes wrong is in the result; raises nothing."""
    try:
        return _work(job, say)
    except OSError as error:
        if error.errno in FULL:
            return Result(later=f"{type(error).__name__}: {error}")
        return Result(reasons=(f"{type(error).__name__}: {error}",))
    except ModelUnavailable as error:
        return Result(later=str(error))
    except (WeirError, ModelError) as error:
        return Result(reasons=(str(error),))
    except Exception as error:
        log.debug("training failed", exc_info=True)
        return Result(reasons=(" ".join(f"training failed: {type(error).__name__}: {error}".split())[:500],))


def _work(job: Job, say: Callable[[str], object]) -> Result:
    pipeline, folder = load_pipeline(job.pipeline), Path(job.folder)
    data = await_rows(pipeline, job)
    for reason in data.skipped:
        log.warning("a file of the archive was left out", reason=reason)
    fit_on, holdout = split_newest(data)
    log.info("training begins", rows=len(fit_on), held_out=len(holdout), until=iso(job.event.range.to))
    path, found = _make(pipeline, job, data, fit_on, folder)
    if isinstance(found, str):
        return Result(reasons=(found,), skipped=data.skipped)
    say("judging")
    try:
        candidate = Runner(path.read_bytes(), pipeline.spec.names, output=pipeline.output)
    except ModelRefused as error:
        return Result(reasons=(f"the exported model cannot be served: {error}",), skipped=data.skipped)
    reasons, evidence = judge(pipeline, job, candidate, holdout)
    return Result(str(path), found, reasons, evidence, skipped=data.skipped)


def await_rows(pipeline: Pipeline, job: Job) -> Dataset:
    """The rows whose label was known when the event came. The archive may be a moment behind it, or on its way here.

    Raises DatasetError.
    """
    deadline = time.monotonic() + job.wait_s
    seen: object = None
    found: Dataset | DatasetError = DatasetError(f"no archive at {job.archive}")
    while True:
        files = _listing(Path(job.archive))
        if files != seen:
            seen, found = files, _rows(pipeline, job)
        lacking = isinstance(found, DatasetError) or (len(found) < job.event.labels and not found.skipped)
        if not lacking or time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_S)
    if isinstance(found, DatasetError):
        raise found
    if lacking:
        log.warning("the archive has fewer rows than the event says", archive=len(found), named=job.event.labels)
    return found


def _rows(pipeline: Pipeline, job: Job) -> Dataset | DatasetError:
    wanted = job.event.range
    try:
        return read_dataset(pipeline, Path(job.archive), from_ms=wanted.start, known_before_ms=wanted.to)
    except DatasetError as error:
        return error


def judge(pipeline: Pipeline, job: Job, candidate: Runner, holdout: Dataset) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Why the candidate is rejected, nothing where it passes; and the evidence.

    holdout: rows that it was not trained on, in the order of time.
    """
    rules = pipeline.rollout.gate if pipeline.rollout else Gate()
    try:
        scores = candidate.run(holdout.matrix)
        took = gate.latency(candidate.run, holdout.matrix) if len(holdout) else None
    except ModelFailed as error:
        return (f"the model fails on the newest rows: {error}",), {}
    days = holdout.times // _DAY_MS
    verdict = gate.judge(rules, scores, _scores(pipeline, job, holdout), holdout.labels, groups=days, latency_s=took)
    evidence = as_plain(verdict.evidence) | {"champion": job.champion.version if job.champion else None}
    log.info("judged", passed=verdict.passed, reasons=list(verdict.reasons), **verdict.measured)
    return () if verdict.passed else verdict.reasons, evidence


def _scores(pipeline: Pipeline, job: Job, holdout: Dataset) -> np.ndarray | None:
    """What the champion says of the same rows; None without one. Raises ModelUnavailable."""
    if job.champion is None:
        return None
    try:
        data = fetch(job.champion.uri, job.champion.sha256, Path(job.cache))
        return Runner(data, pipeline.spec.names, output=job.champion.output).run(holdout.matrix)
    except (ModelRefused, ModelFailed) as error:
        # it serves nothing: whoever is better than the base rate may take its place
        log.warning("the champion cannot be asked", version=job.champion.version, reason=str(error))
        return None


def _make(
    pipeline: Pipeline, job: Job, data: Dataset, fit_on: Dataset, folder: Path
) -> tuple[Path, dict[str, str | int | float] | str]:
    """The model's file and its lineage, or why there is none; one that a former try has made is taken."""
    path, record = folder / "model.onnx", folder / "made.json"
    made = _read_made(record)
    if made and (made.digest, made.seed, made.sha256) == (data.digest, job.seed, _sha256(path)):
        log.info("the model of the former try is taken")
        return path, made.lineage
    folder.mkdir(parents=True, exist_ok=True)
    trained = fit(pipeline, fit_on, path, job.seed, _said)
    try:
        model = Path(trained.path).read_bytes()
        found: dict[str, str | int | float] = as_plain(lineage(data, trained))
    except FileNotFoundError:
        return path, f"the training says that it wrote {trained.path}, but there is no such file"
    except (TypeError, ValueError, AttributeError) as error:
        return path, f"the training returned what cannot be read: {error}"
    found["held_out"] = len(data) - len(fit_on)
    if Path(trained.path) != path:
        write_atomically(path, model)
    write_atomically(record, msgspec.json.encode(_Made(data.digest, job.seed, sha256_of(model), found)))
    return path, found


def _said(epoch: Epoch) -> None:
    log.info("training", epoch=epoch.number, of=epoch.of, validation_loss=round(epoch.validation_loss, 5))


def _read_made(record: Path) -> _Made | None:
    try:
        return msgspec.json.decode(record.read_bytes(), type=_Made)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _sha256(path: Path) -> str:
    return sha256_of(path.read_bytes()) if path.is_file() else ""


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """The files of an archive as they are now: name, size, time of change."""
    return sorted((path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in folder.glob("*.parquet"))
