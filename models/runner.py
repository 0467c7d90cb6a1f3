"""One ONNX Runtime session: explicit threads, warmed shapes, on the provider that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from models.contract import read_contract
from models.errors import ModelFailed, ModelRefused, one_line
from models.sizes import SIZES, padded

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SUFFIX = "ExecutionProvider"
_DEVICES = {CUDA: "cuda"}
"""Providers with memory of their own, and what ONNX Runtime calls it: rows and scores stay bound to buffers there."""

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
    sizes: rows a call is padded to, rising (larger batches are cut); providers: ONNX Runtime's, in order of
    preference, empty = CUDA where there is one, else the CPU (see `providers_of`).
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
        providers: Sequence[str] = (),
    ) -> None:
        self._contract = read_contract(model, features, output)
        self._features = len(features)
        self._sizes = tuple(sizes)
        self._buffers: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        try:
            self._session = _session(self._contract.graph, threads, providers)
        except _ERRORS as error:
            raise ModelRefused(f"ONNX Runtime cannot load the model: {one_line(error)}") from None
        self.provider: str = self._session.get_providers()[0]
        device = _DEVICES.get(self.provider)
        self._bound = _Bound(self._session, self._contract.output, device) if device else None
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
            self._bound = None
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
        if self._bound is not None:
            found = self._bound.run(feeds)
        else:
            found = self._session.run([self._contract.output], feeds)[0]
        scores: np.ndarray = np.asarray(found, dtype=np.float32)
        if scores.ndim == 2 and self._contract.last_column:
            scores = scores[:, -1]
        elif scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if unasked is not None:
            scores = scores.copy()
            scores[unasked] = np.nan
        return scores

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        size = padded(len(rows), self._sizes)
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


class _Bound:
    """A session whose inputs and output lie in buffers of its device, one set for each number of rows: a call copies
    the rows there and the scores back, and makes nothing new.
    """

    def __init__(self, session: Any, output: str, device: str) -> None:
        self._session, self._output, self._device = session, output, device
        self._sets: dict[int, tuple[Any, dict[str, Any]]] = {}

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """The output for one array [n, …] an input; n is one of few."""
        rows = len(next(iter(feeds.values())))
        if rows not in self._sets:
            self._sets[rows] = self._bind(feeds)
        binding, inputs = self._sets[rows]
        for name, values in inputs.items():
            values.update_inplace(feeds[name])
        self._session.run_with_iobinding(binding)
        scores: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return scores

    def _bind(self, feeds: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        binding, inputs = self._session.io_binding(), {}
        for name, array in feeds.items():  # a copy: on the CPU the buffer would be the caller's own array
            inputs[name] = ort.OrtValue.ortvalue_from_numpy(array.copy(), self._device, 0)
            binding.bind_ortvalue_input(name, inputs[name])
        binding.bind_output(self._output, self._device, 0)
        return binding, inputs


def available_providers() -> list[str]:
    """What this ONNX Runtime was built with, in its own order; a device may be missing all the same."""
    return list(ort.get_available_providers())


def providers_of(names: str) -> tuple[str, ...]:
    """ONNX Runtime's providers of a list such as `CUDA,CPU`, in order of preference; empty for an empty one.

    Names are ONNX Runtime's, with or without ExecutionProvider at their end. Raises ModelRefused for one that this
    ONNX Runtime does not have, and where the first does not start on this machine: it would be the CPU, silently.
    """
    known = {name.removesuffix(_SUFFIX).lower(): name for name in available_providers()}
    found: list[str] = []
    for name in filter(None, (one.strip() for one in names.split(","))):
        provider = known.get(name.removesuffix(_SUFFIX).lower())
        if provider is None:
            there = ", ".join(name.removesuffix(_SUFFIX) for name in known.values())
            raise ModelRefused(f"this ONNX Runtime has no provider {name!r}; it has {there}")
        found.append(provider)
    if found and not starts(found[0]):
        raise ModelRefused(f"{found[0]} does not start on this machine: its device, driver or libraries are missing")
    return tuple(dict.fromkeys(found))


def starts(provider: str) -> bool:
    """Whether ONNX Runtime can use the provider on this machine: it was built with it, and its device is there."""
    if provider not in available_providers():
        return False
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = _session(model.SerializeToString(), 1, [provider])
        session.run(None, {"x": np.zeros((1, 1), dtype=np.float32)})
    except _ERRORS:
        return False
    return bool(session.get_providers()[0] == provider)


def _session(graph: bytes, threads: int, providers: Sequence[str] = ()) -> Any:
    options = ort.SessionOptions()
    # sized by hand: ONNX Runtime counts the host's cores, not the container's
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; the log would only repeat them on stderr
    if providers:  # no fallback: who asks for one wants to know
        return ort.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
    there = available_providers()
    return ort.InferenceSession(graph, options, providers=[p for p in (CUDA, CPU) if p in there])
