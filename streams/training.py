"""A training: the data it reads, the model it makes, where that came from. Shared by `weir train` and the trainer."""

from __future__ import annotations

import errno
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.spec import Category, Frequency
from models import dataset
from models.dataset import Dataset
from models.errors import ModelError
from models.trainer import Trained, train_mlp
from streams.errors import WeirError
from streams.loading import load_function

if TYPE_CHECKING:
    from models.trainer import Epoch
    from streams.pipeline import Pipeline

Lineage = dict[str, str | int | float]
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Errors of a disk that has no room, or no health: they say nothing of the data or the function."""


def read_dataset(
    pipeline: Pipeline, folder: Path, files: Sequence[Path] | None = None, **within: int | None
) -> Dataset:
    """The pipeline's training data: its features as logged, categories encoded as in serving.

    files: of a dataset at `folder`; None = it is an archive. within: from_ms, to_ms, known_before_ms, as in
    models.dataset.read.
    """
    categories = {f.name: f.encoding for f in pipeline.spec.features if isinstance(f, Category)}
    codes = {name: encoding for name, encoding in categories.items() if not isinstance(encoding, Frequency)}
    return dataset.read(
        folder,
        pipeline.spec.names,
        encode={name: encoding.encode for name, encoding in categories.items()},
        sizes={name: encoding.size for name, encoding in codes.items()},
        files=files,
        **within,
    )


def fit(
    pipeline: Pipeline, data: Dataset, out: Path, seed: int, on_epoch: Callable[[Epoch], None] | None = None
) -> Trained:
    """Trains with the pipeline's own function, or with the built-in network.

    Raises WeirError or ModelError with what is wrong with the data or the function; OSError where the disk is full.
    """
    where = pipeline.retrain.function if pipeline.retrain else None
    if where is None:
        try:
            return train_mlp(data, out, seed=seed, on_epoch=on_epoch)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise WeirError(NO_TORCH) from error
    function = load_function(where)
    try:
        trained = function(data, out, seed)
    except (WeirError, ModelError):
        raise
    except OSError as error:
        if error.errno in FULL:
            raise
        raise WeirError(f"{where} failed: {type(error).__name__}: {error}") from error
    except (Exception, SystemExit) as error:
        raise WeirError(f"{where} failed: {type(error).__name__}: {error}") from error
    if not isinstance(trained, Trained):
        raise WeirError(f"{where} must return models.trainer.Trained, it returned {type(trained).__name__}")
    return trained


NO_TORCH = "training needs torch: install weir with the extra train"


def lineage(data: Dataset, trained: Trained) -> Lineage:
    """What the registry keeps of a training: the data it saw, the seed, what it reached, where it ran."""
    return {
        "rows": len(data),
        "from": iso(int(data.times.min())),
        "to": iso(int(data.times.max())),
        "data": data.digest,
        "seed": trained.seed,
        **environment(),
        **{name: round(float(value), 6) for name, value in trained.metrics.items() if name != "rows"},
    }


@cache
def environment() -> Mapping[str, str]:
    """The code and the libraries that decide what a training gives."""
    return {
        "code": revision(),
        "python": platform.python_version(),
        **{name: found for name in ("torch", "onnxruntime", "numpy") if (found := _version(name))},
        "platform": f"{platform.system()}-{platform.machine()}",
    }


def revision() -> str:
    """The commit that this code is of, with "-dirty" where it was changed since; else the package's version."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--tags"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=here, capture_output=True, timeout=10, check=False,
        )  # fmt: skip
        if tracked.returncode == 0:  # not some other repository that this is merely installed in
            return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return _version("weir") or "unknown"


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def as_plain(value: Any) -> Any:
    """Numbers of numpy and the like as JSON knows them; what is not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | str | int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if abs(number) != float("inf") and number == number else str(number)
