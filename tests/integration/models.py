"""Models in service: files, deployments on the pipeline's topic, and scores computed again from what was logged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from features.spec import Category
from models import rollout
from models.rollout import Deployment, Version
from streams.release import publish
from streams.settings import Settings, load_settings
from tests.integration.outputs import Output
from tests.integration.tape import Tape
from tests.integration.worker import Servers
from tests.models.graphs import graph_of


def model(tape: Tape, folder: Path, version: str, *, width: int | None = None) -> Version:
    """A random model of the tape's features; another one for each version. width: of its input, if a wrong one."""
    spec = tape.pipeline.spec
    path = folder / f"{tape.pipeline.name}-{version}.onnx"
    path.write_bytes(_network(width or len(spec.names), seed=sum(version.encode())))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Version(tape.pipeline.model, version, str(path), digest, spec.hash)


def _network(width: int, seed: int) -> bytes:
    """An MLP width-32-16-1 with drawn weights, to which missing features are 0."""
    draw = np.random.default_rng(seed)
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "x"], ["filled"]),
        helper.make_node("Mul", ["filled", "scale"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["h0"]),
    ]
    constants: dict[str, Any] = {"zero": np.float32(0), "scale": np.float32(0.01)}
    for i, (rows, columns) in enumerate(pairwise((width, 32, 16, 1))):
        constants[f"w{i}"] = draw.normal(0, 1, (rows, columns)).astype(np.float32)
        constants[f"b{i}"] = draw.normal(0, 0.1, columns).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [f"h{i}", f"w{i}", f"b{i}"], [f"z{i}"]))
        nodes.append(helper.make_node("Sigmoid" if i == 2 else "Relu", [f"z{i}"], [f"h{i + 1}"]))
    shapes: list[list[int | str | None]] = [["n", width], ["n", 1]]
    x, y = ((name, int(TensorProto.FLOAT), shape) for name, shape in zip(("x", "h3"), shapes, strict=True))
    encoded: bytes = graph_of(nodes, [x], [y], constants).SerializeToString()
    return encoded


def settings_of(servers: Servers) -> Settings:
    wanted = {name.removeprefix("WEIR_").lower(): value for name, value in servers.settings.items()}
    return load_settings(**wanted, data_dir=servers.data_dir)


def deploy(tape: Tape, servers: Servers, deployment: Deployment) -> Deployment:
    """Publishes it; returns it."""
    publish(tape.pipeline, settings_of(servers), servers.broker, deployment)
    return deployment


def champion(tape: Tape, servers: Servers, version: Version) -> Deployment:
    """Publishes the first deployment."""
    return deploy(tape, servers, rollout.promote(rollout.unscored(tape.pipeline.model), version))


def inputs(tape: Tape, predictions: Sequence[dict[str, Any]]) -> np.ndarray:
    """What the model saw, float32 [n, d], from the logged features."""
    columns = []
    for feature in tape.pipeline.spec.features:
        raw = [p["features"][feature.name] for p in predictions]
        if isinstance(feature, Category):
            columns.append(feature.encoding.encode(raw))
        else:
            columns.append(np.array([np.nan if v is None else v for v in raw], dtype=np.float32))
    return np.stack(columns, axis=1)


def assert_scores(tape: Tape, outputs: Sequence[Output], versions: Sequence[Version]) -> None:
    """The score of each prediction, and of its shadows, is what the named version says of the logged features."""
    predictions = [output.prediction for output in outputs]
    matrix = inputs(tape, predictions)
    for version in versions:
        session = ort.InferenceSession(version.uri, providers=["CPUExecutionProvider"])
        again = session.run(None, {session.get_inputs()[0].name: matrix})[0].reshape(-1)
        named = [
            (p["score"] if p["version"] == version.version else p["shadows"].get(version.version), float(value))
            for p, value in zip(predictions, again, strict=True)
            if version.version in (p["version"], *p["shadows"])
        ]
        assert named, f"no prediction names version {version.version}"
        found, expected = zip(*named, strict=True)
        np.testing.assert_allclose(np.array(found, dtype=np.float64), expected, rtol=1e-4, atol=1e-7)
        assert len(set(found)) > min(len(found) // 10, 100), "the scores are all the same"
