"""Rows of the input files that cannot be used: what the stream sends to its dead letters, beside the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import orjson


class Reject(NamedTuple):
    """A row of `file` (`row` counts from 1) and why; stage, code, reason and field as of a dead letter."""

    source: str
    file: str
    row: int
    stage: str
    code: str
    reason: str
    field: str
    value: str


class Rejects:
    """Writes rejects to `path`, one JSON object a line; without any there is no file.

    counts: by (source, stage, code).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._file: IO[bytes] | None = None

    def add(self, rejects: Iterable[Reject]) -> None:
        for reject in rejects:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb")
            self.counts[reject.source, reject.stage, reject.code] += 1
            self._file.write(orjson.dumps(reject._asdict()) + b"\n")

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
