"""One ONNX Runtime session: explicit threads, warmed shapes, CUDA where there is one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from models.contract import read_contract
from models.errors import ModelFailed, ModelRefused, one_line

SIZES = (64, 256, 512, 1024, 2048, 4096)
"""Rows a call is padded to. From 64 rows on, a row's score does not depend on the rows beside it (on the CPU,
with MLPs, linear models and tree ensembles: the tests hold it). Smaller calls take other code paths and may
differ in the last bit; two replays, whose batches differ, would then not give equal scores."""

_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(_native).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
)
"""All that a session raises: its own exceptions have no common base."""


class Runner:
    """Scores matrices of features with one model. Loading warms every size: no later call is a slow first
    one.

    model: an ONNX file (see models.contract for what is taken); features: the names of the matrix's columns;
    output: the name of the score's output, None = found by the contract; threads: of one operator;
    sizes: rows a call is padded to, rising (larger batches are cut).
    Raises ModelRefused.
    """

    def __init__(
        self,
        model: bytes,
        features: Sequence[str],
        *,
        output: str | None = None,
        threads: int = 1,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self._contract = read_contract(model, features, output)
        self._features = len(features)
        self._sizes = tuple(sizes)
        self._buffers: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        try:
            self._session = _session(self._contract.graph, threads)
        except _ERRORS as error:
            raise ModelRefused(f"ONNX Runtime cannot load the model: {one_line(error)}") from None
        self.provider: str = self._session.get_providers()[0]
        self.width: int | None = None
        """Scores a row: None for one (the result is [n]), k for [n, k]."""
        self._warm_up()

    def run(self, matrix: np.ndarray) -> np.ndarray:
        """Scores float32 [n] or [n, k] of float32 [n, d]; NaN in a matrix reaches the model as it is.

        A row that lacks a value for an integer input cannot be asked: its score is NaN.
        Raises ModelFailed. May be called from any thread.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self._features:
            raise ModelFailed(f"the model takes {self._features} features a row, not a matrix {matrix.shape}")
        shape = (len(matrix),) if self.width is None else (len(matrix), self.width)
        scores = np.empty(shape, dtype=np.float32)
        largest = self._sizes[-1]
        with self._lock:
            for start in range(0, len(matrix), largest):
                rows = matrix[start : start + largest]
                try:
                    scores[start : start + largest] = self._call(rows)[: len(rows)]
                except _ERRORS as error:
                    raise ModelFailed(f"inference failed: {one_line(error)}") from None
        return scores

    def release(self) -> None:
        """Frees the session's memory; the runner is not used after it."""
        with self._lock:
            self._buffers.clear()
            del self._session

    def _call(self, rows: np.ndarray) -> np.ndarray:
        """Scores [size] or [size, k] of up to the largest size rows, padded."""
        padded = self._pad(rows)
        feeds: dict[str, np.ndarray] = {}
        unasked: np.ndarray | None = None
        for value in self._contract.inputs:
            part = padded if value.column is None else padded[:, value.column : value.column + 1]
            if value.dtype is np.int64:
                absent = ~np.isfinite(part)
                if absent.any():
                    part = np.where(absent, np.float32(0), part)
                    lacking = absent.any(axis=1)
                    unasked = lacking if unasked is None else unasked | lacking
            part = np.ascontiguousarray(part, dtype=value.dtype)
            feeds[value.name] = part if value.rank == 2 else part[:, 0]
        scores: np.ndarray = np.asarray(
            self._session.run([self._contract.output], feeds)[0], dtype=np.float32
        )
        if scores.ndim == 2 and self._contract.last_column:
            scores = scores[:, -1]
        elif scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if unasked is not None:
            scores = scores.copy()
            scores[unasked] = np.nan
        return scores

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        size = next(size for size in self._sizes if size >= len(rows))
        if size == len(rows):
            return rows
        buffer = self._buffers.get(size)
        if buffer is None:
            buffer = self._buffers[size] = np.zeros((size, self._features), dtype=np.float32)
        buffer[: len(rows)] = rows
        buffer[len(rows) :] = 0
        return buffer

    def _warm_up(self) -> None:
        for size in self._sizes:
            try:
                scores = self._call(np.zeros((size, self._features), dtype=np.float32))
            except _ERRORS as error:
                raise ModelRefused(f"the model fails on {size} rows of zeros: {one_line(error)}") from None
            if scores.ndim not in (1, 2) or len(scores) != size:
                raise ModelRefused(
                    f"output {self._contract.output} has the shape {list(scores.shape)} for {size} rows;"
                    " it must be [n] or [n, k]"
                )
            self.width = None if scores.ndim == 1 else scores.shape[1]


def _session(graph: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    # sized by hand: ONNX Runtime counts the host's cores, not the container's
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; the log would only repeat them on stderr
    found = ort.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in found]
    return ort.InferenceSession(graph, options, providers=providers)
