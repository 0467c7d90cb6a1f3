"""Small ONNX files for the tests, built node by node."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, list[int | str | None]]],
    outputs: Sequence[tuple[str, int, list[int | str | None]]],
    constants: dict[str, Any] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets + options.pop("opsets", []), ir_version=8, **options)


def linear(weights: Sequence[float], bias: float = 0.0) -> onnx.ModelProto:
    """sigmoid(x · weights + bias), [n, d] → [n, 1]."""
    w = np.array(weights, dtype=np.float32)[:, None]
    return graph_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", len(weights)])],
        [("y", TensorProto.FLOAT, ["n", 1])],
        {"w": w, "b": np.array([bias], dtype=np.float32)},
    )


def constant_score(value: float, features: int = 2) -> bytes:
    """The same score for every row."""
    logit = float(np.log(value / (1 - value)))
    return linear([0.0] * features, logit).SerializeToString()


def mlp(widths: Sequence[int], seed: int = 0) -> bytes:
    """Random layers with ReLU between them, [n, widths[0]] → [n, widths[-1]]."""
    rng = np.random.default_rng(seed)
    nodes, constants, x = [], {}, "x"
    for i, (a, b) in enumerate(pairwise(widths)):
        constants[f"w{i}"] = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        constants[f"b{i}"] = rng.normal(size=b).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}"]))
        x = f"r{i}"
        nodes.append(helper.make_node("Relu" if i < len(widths) - 2 else "Sigmoid", [f"g{i}"], [x]))
    return graph_of(
        nodes,
        [("x", TensorProto.FLOAT, ["n", widths[0]])],
        [(x, TensorProto.FLOAT, ["n", widths[-1]])],
        constants,
    ).SerializeToString()
