"""What can go wrong with models, and what to do about it.

ModelError            one line for the user
├── ModelRefused      this file or deployment can never be served: mend it and deploy again
├── ModelUnavailable  the file could not be fetched: try again later
├── ModelFailed       the model raised on these rows: the version is at fault, not the worker
├── TrainingFailed    nothing was learned: the message says what the data lacks
├── DatasetError      the archive cannot be read as asked
└── RegistryError     the registry refused or did not answer
"""

from __future__ import annotations


class ModelError(Exception):
    """Any of the below; its text is one line."""


class ModelRefused(ModelError):
    """The file, or its place in a deployment, is not what the pipeline needs. Never retried."""


class ModelUnavailable(ModelError):
    """The file is not there or the server does not answer. Worth another try."""


class ModelFailed(ModelError):
    """Inference raised. version: of the model that did; empty where that is not known yet."""

    def __init__(self, reason: str, version: str = "") -> None:
        super().__init__(reason)
        self.version = version


class TrainingFailed(ModelError):
    """Training gave no usable model."""


class DatasetError(ModelError):
    """No usable training data."""


class RegistryError(ModelError):
    """The registry refused the call or cannot be reached."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of a library's exception on one line, without its source positions."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
