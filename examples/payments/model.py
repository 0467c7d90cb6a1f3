"""The payments model: an MLP 8-64-32-1 as an ONNX file, the same bytes for the same seed.

    python -m examples.payments.model payments.onnx

Its weights are drawn, not learned: it costs what a trained one would, which is what a benchmark needs.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

FEATURES = (
    "amount",
    "user_id_since_last",
    "user_id_count_1h",
    "user_id_count_24h",
    "user_id_sum_amount_1h",
    "user_id_sum_amount_24h",
    "user_id_mean_amount_1h",
    "user_id_mean_amount_24h",
)
"""The model's inputs in their order."""

_TYPICAL = np.array([45, 500, 7, 120, 320, 5400, 45, 45], np.float32)
_SPREAD = np.array([60, 500, 3, 60, 250, 3000, 30, 15], np.float32)


def build(seed: int = 7, hidden: tuple[int, int] = (64, 32), more: int = 0) -> ModelProto:
    """An ONNX model: `features` float32 [n, 8 + more], NaN where missing → `score` float32 [n] in (0, 1).

    A missing feature counts as its typical value. hidden: units of its layers. more: inputs beyond `FEATURES`, each of
    the scale of an amount.
    """
    draw = np.random.default_rng(seed)
    sizes = (len(FEATURES) + more, *hidden, 1)
    weights: dict[str, np.ndarray] = {
        "typical": np.append(_TYPICAL, np.full(more, _TYPICAL[0])),
        "spread": np.append(_SPREAD, np.full(more, _SPREAD[0])),
        "low": np.array(-4, np.float32),
        "high": np.array(4, np.float32),
        "last_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "typical", "features"], ["filled"]),
        helper.make_node("Sub", ["filled", "typical"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["scaled"]),
        # One huge amount must not saturate the score.
        helper.make_node("Clip", ["scaled", "low", "high"], ["h0"]),
    ]
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        weights[f"w{layer}"] = draw.normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out)).astype(np.float32)
        weights[f"b{layer}"] = draw.normal(0, 0.1, fan_out).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"z{layer}"]))
        if layer < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [f"z{layer}"], [f"h{layer + 1}"]))
    nodes += [
        helper.make_node("Sigmoid", ["z2"], ["probability"]),
        helper.make_node("Squeeze", ["probability", "last_axis"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "payments",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", sizes[0]])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


def write(path: Path, seed: int = 7, hidden: tuple[int, int] = (64, 32), more: int = 0) -> Path:
    """Writes the model to `path` and returns it."""
    path.write_bytes(build(seed, hidden, more).SerializeToString(deterministic=True))
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "payments.onnx")))
