"""A small network as plain arrays, and its ONNX graph: from raw features to a probability.

The graph is written node by node from the trained arrays: no exporter, so no dependency and no version of one
in the bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.errors import TrainingFailed

OPSET, IR_VERSION = 17, 8
"""Old enough for every ONNX Runtime that is served with."""
INPUT, OUTPUT = "features", "score"


@dataclass(frozen=True)
class Categorical:
    """A feature that is a code: its column, its number of codes (the last: unknown), width of its table."""

    column: int
    size: int
    width: int


@dataclass(frozen=True)
class Inputs:
    """How features become what the first layer sees: numbers cut, standardised and filled, with a flag for
    those that were missing, and category codes.

    columns: int64 [m] of the numeric features; low, high, mean, scale: float32 [m]; flagged: int64 [f],
    places in `columns` that were missing at times in training.
    """

    features: int
    columns: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    flagged: np.ndarray
    categories: tuple[Categorical, ...]

    @classmethod
    def fit(
        cls, matrix: np.ndarray, names: Sequence[str], sizes: Mapping[str, int], clip_quantile: float
    ) -> Inputs:
        """Learns them from float32 [n, d]. Raises TrainingFailed for an infinite value."""
        infinite = np.isinf(matrix).any(axis=0)
        if infinite.any():
            raise TrainingFailed(
                f"feature {names[int(infinite.argmax())]} is infinite in some rows; mend its source"
            )
        categories = tuple(
            Categorical(column, sizes[name], min(8, (sizes[name] + 1) // 2))
            for column, name in enumerate(names)
            if name in sizes
        )
        columns = np.array([c for c, name in enumerate(names) if name not in sizes], dtype=np.int64)
        # a feature that was never there stands at 0: the network learns nothing of it
        low, high, mean, scale = (np.zeros(len(columns), dtype=np.float32) for _ in range(4))
        missing = np.isnan(matrix[:, columns])
        for place, column in enumerate(columns):
            present = matrix[~missing[:, place], column].astype(np.float64)
            if len(present):
                low[place], high[place] = np.quantile(present, [clip_quantile, 1 - clip_quantile])
                if low[place] == high[place]:  # rare values are all there is to learn from
                    low[place], high[place] = present.min(), present.max()
                cut = np.clip(present, low[place], high[place])
                mean[place] = cut.mean()
                scale[place] = 1 / cut.std() if cut.std() > 1e-6 * max(1.0, abs(cut.mean())) else 0
        flagged = np.flatnonzero(missing.any(axis=0)).astype(np.int64)
        return cls(matrix.shape[1], columns, low, high, mean, scale, flagged, categories)

    def apply(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers float32 [n, m + f] and codes int64 [n, c] of float32 [n, d], as the graph computes them."""
        raw = matrix[:, self.columns]
        missing = np.isnan(raw)
        scaled = (np.clip(raw, self.low, self.high) - self.mean) * self.scale
        numbers = np.concatenate([np.where(missing, np.float32(0), scaled), missing[:, self.flagged]], axis=1)
        codes = np.empty((len(matrix), len(self.categories)), dtype=np.int64)
        for place, category in enumerate(self.categories):
            code = matrix[:, category.column]
            known = (code >= 0) & (code < category.size)
            codes[:, place] = np.where(known, code, np.float32(category.size - 1)).astype(np.int64)
        return numbers.astype(np.float32), codes


@dataclass(frozen=True)
class Layer:
    """weights float32 [inputs, outputs], bias float32 [outputs]."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Network:
    """Layers with ReLU between them and a sigmoid at the end; tables: float32 [size, width] by category."""

    inputs: Inputs
    layers: tuple[Layer, ...]
    tables: tuple[np.ndarray, ...]

    def with_mean_for_unseen(self, codes: np.ndarray) -> Network:
        """Codes that no training row had (codes int64 [n, c]) get the mean row of those that had: a new
        category is an average one, not a random one."""
        tables = []
        for place, table in enumerate(self.tables):
            counts = np.bincount(codes[:, place], minlength=len(table)).astype(np.float64)
            average = (counts[:, None] * table).sum(axis=0) / counts.sum()
            tables.append(np.where(counts[:, None] > 0, table, average).astype(np.float32))
        return dataclasses.replace(self, tables=tuple(tables))


def to_onnx(network: Network) -> bytes:
    """The network as an ONNX file: `features` float32 [n, d] (NaN = missing) → `score` float32 [n]."""
    graph = _Graph()
    inputs = network.inputs
    raw = graph.add("Gather", INPUT, graph.constant(inputs.columns), axis=1)
    missing = graph.add("IsNaN", raw)
    cut = graph.add("Min", graph.add("Max", raw, graph.constant(inputs.low)), graph.constant(inputs.high))
    centred = graph.add("Sub", cut, graph.constant(inputs.mean))
    scaled = graph.add("Mul", centred, graph.constant(inputs.scale))
    parts = [graph.add("Where", missing, graph.constant(np.float32(0)), scaled)]
    flags = graph.add("Cast", missing, to=TensorProto.FLOAT)
    parts.append(graph.add("Gather", flags, graph.constant(inputs.flagged), axis=1))
    for category, table in zip(inputs.categories, network.tables, strict=True):
        code = graph.add("Gather", INPUT, graph.constant(np.int64(category.column)), axis=1)
        known = graph.add(
            "And",
            graph.add("GreaterOrEqual", code, graph.constant(np.float32(0))),
            graph.add("Less", code, graph.constant(np.float32(category.size))),
        )
        unknown = graph.constant(np.float32(category.size - 1))
        index = graph.add("Cast", graph.add("Where", known, code, unknown), to=TensorProto.INT64)
        parts.append(graph.add("Gather", graph.constant(table), index, axis=0))
    x = graph.add("Concat", *parts, axis=1)
    for number, layer in enumerate(network.layers):
        x = graph.add("Relu", x) if number else x
        x = graph.add("Gemm", x, graph.constant(layer.weights), graph.constant(layer.bias))
    graph.add(
        "Reshape", graph.add("Sigmoid", x), graph.constant(np.array([-1], dtype=np.int64)), output=OUTPUT
    )
    return graph.serialize(inputs.features)


class _Graph:
    """Nodes and constants, named in the order in which they come."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray | np.generic) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        )
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def serialize(self, features: int) -> bytes:
        takes = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", features])
        gives = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n"])
        graph = helper.make_graph(self._nodes, "mlp", [takes], [gives], self._constants)
        model = helper.make_model(
            graph, producer_name="weir", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        data: bytes = model.SerializeToString(deterministic=True)
        return data
