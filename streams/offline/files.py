"""Input files: which stream each belongs to, what it is, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Literal

from streams.errors import UsageError, did_you_mean

Format = Literal["parquet", "csv", "jsonl"]
SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Input:
    """The files of one stream, in the order in which they are read, all of one format."""

    name: str
    paths: tuple[Path, ...]
    format: Format


def inputs_of(given: Iterable[str], streams: Sequence[str], alone: str | None = None) -> dict[str, Input]:
    """What `--input` names, by stream: NAME=FILES, or FILES alone for the stream `alone`, if there is that.

    FILES is a path, a pattern, or a folder of files. Several of one name are read one after another. UsageError says
    what is wrong.
    """
    found: dict[str, list[Path]] = {}
    for text in given:
        name, equals, files = text.partition("=")
        if not equals or (name not in streams and Path(text).exists()):  # a folder may be called date=2026-01-01
            if alone is None:
                raise UsageError(f"--input {text}: say which stream it is: NAME={text}; NAME is {_or(streams)}")
            name, files = alone, text
        if name not in streams:
            known = did_you_mean(name, streams) or f"; it reads {_or(streams)}"
            raise UsageError(f"--input {text}: the pipeline reads no {name!r}{known}")
        found.setdefault(name, []).extend(_paths(text, files))
    return {name: Input(name, tuple(paths), _format(paths)) for name, paths in found.items()}


def file_input(name: str, files: str, option: str) -> Input:
    """The files of an option that names no stream."""
    paths = _paths(f"{option} {files}", files)
    return Input(name, tuple(paths), _format(paths))


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _paths(said: str, files: str) -> list[Path]:
    path = Path(files)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise UsageError(f"{said}: the folder has no file that ends in {_or(list(SUFFIXES))}")
        return found
    if path.is_file():
        return [path]
    found = sorted(Path(p) for p in glob(files, recursive=True) if Path(p).is_file())
    if not found:
        raise UsageError(f"{said}: there is no such file")
    return found


def _format(paths: Sequence[Path]) -> Format:
    formats = {path: SUFFIXES.get(path.suffix.lower()) for path in paths}
    for path, kind in formats.items():
        if kind is None:
            raise UsageError(f"{path}: what it holds is told by its end: {_or(list(SUFFIXES))}")
    if len(set(formats.values())) > 1:
        raise UsageError(f"{paths[0]} and {paths[-1]}: the files of one stream must be of one kind")
    kind = formats[paths[0]]
    assert kind is not None
    return kind


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
