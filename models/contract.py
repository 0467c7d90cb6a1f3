"""What an ONNX file must be to be served, and how the pipeline's features become its inputs.

Refused: weights in other files, operators outside the standard domains, compiled EPContext nodes (they read
files or code that the digest does not cover). Taken: one numeric input [n, d], or one numeric input a
feature, named like it. The score is the output named in the declaration, else the only one, else the last
column of the probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from models.errors import ModelRefused, one_line

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_NUMBERS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT64: np.int64,
}
_SCORES = frozenset({*_NUMBERS, TensorProto.INT32, TensorProto.FLOAT16, TensorProto.BOOL})


@dataclass(frozen=True)
class Input:
    """An input of the model.

    column: the feature it takes ([n] or [n, 1]), or None for the whole matrix [n, d]; dtype: numpy's.
    """

    name: str
    dtype: Any
    column: int | None
    rank: int


@dataclass(frozen=True)
class Contract:
    """A model that may be served: its graph cut down to the score, and how to feed it.

    last_column: the score is the last column of `output`, not all of it.
    """

    graph: bytes
    inputs: tuple[Input, ...]
    output: str
    last_column: bool


def read_contract(model: bytes, features: Sequence[str], output: str | None = None) -> Contract:
    """Checks an ONNX file against the features of a pipeline, in the order of the matrix's columns.

    output: the output to use; all its columns are the score.
    Raises ModelRefused with what is wrong and the mend.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ModelRefused(f"not an ONNX file, or cut short: {one_line(error)}") from None
    if not proto.graph.output:
        raise ModelRefused("not an ONNX model: its graph has no outputs")
    _refuse_unsafe(proto)
    inputs = _inputs(proto.graph, features)
    name, last_column = _output(proto.graph, output)
    _keep_only(proto, name)
    return Contract(proto.SerializeToString(deterministic=True), inputs, name, last_column)


def _refuse_unsafe(proto: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name) for f in proto.functions}
    for message in _messages(proto):
        if isinstance(message, onnx.TensorProto):
            if message.data_location == TensorProto.EXTERNAL or message.external_data:
                raise ModelRefused(
                    f"tensor {message.name!r} lies in another file (external data);"
                    " export the model with its weights inside"
                )
        elif isinstance(message, onnx.NodeProto):
            if message.op_type == "EPContext":
                raise ModelRefused(
                    "an EPContext node holds code compiled for one device; export the model uncompiled"
                )
            if message.domain not in DOMAINS and (message.domain, message.op_type) not in functions:
                raise ModelRefused(
                    f"operator {message.domain}.{message.op_type} is a custom one;"
                    " export the model with standard ONNX operators"
                )


def _messages(message: Message) -> Iterator[Message]:
    """`message` and every message inside it: subgraphs, functions and attributes included."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            yield from _messages(inner)


def _inputs(graph: onnx.GraphProto, features: Sequence[str]) -> tuple[Input, ...]:
    constants = {tensor.name for tensor in graph.initializer}
    declared = [value for value in graph.input if value.name not in constants]
    if len(declared) == 1 and not _is_named(declared[0], features):
        return (_matrix(declared[0], features),)
    names = [value.name for value in declared]
    missing = [name for name in features if name not in names]
    extra = [name for name in names if name not in features]
    if missing or extra:
        lacks = f"; it has no input for {', '.join(missing)}" if missing else ""
        unknown = f"; the pipeline has no feature {', '.join(extra)}" if extra else ""
        raise ModelRefused(
            f"the model's inputs must be one matrix or the features by name{lacks}{unknown};"
            " rename the inputs or the features"
        )
    columns = {name: column for column, name in enumerate(features)}
    return tuple(_column(value, columns[value.name]) for value in declared)


def _is_named(value: onnx.ValueInfoProto, features: Sequence[str]) -> bool:
    return list(features) == [value.name]


def _matrix(value: onnx.ValueInfoProto, features: Sequence[str]) -> Input:
    dtype, shape = _number(value)
    if len(shape) != 2:
        raise ModelRefused(
            f"input {value.name} must have the shape [n, {len(features)}], not {_shape_text(shape)}"
        )
    if shape[1] is not None and shape[1] != len(features):
        raise ModelRefused(
            f"input {value.name} takes {shape[1]} features, the pipeline has {len(features)}"
            f" ({', '.join(features)}); train the model on these, in this order"
        )
    return Input(value.name, dtype, None, 2)


def _column(value: onnx.ValueInfoProto, column: int) -> Input:
    dtype, shape = _number(value)
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (None, 1)):
        raise ModelRefused(f"input {value.name} must have the shape [n] or [n, 1], not {_shape_text(shape)}")
    return Input(value.name, dtype, column, len(shape))


def _number(value: onnx.ValueInfoProto) -> tuple[Any, list[int | None]]:
    """The numpy type and shape of an input; None stands for any length."""
    tensor = value.type.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        raise ModelRefused(
            f"input {value.name} takes strings; features reach a model as numbers:"
            " export it to take the category's code (float32)"
        )
    if tensor.elem_type not in _NUMBERS:
        raise ModelRefused(f"input {value.name} must be a float32, float64 or int64 tensor")
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if shape and shape[0] is not None:
        raise ModelRefused(
            f"input {value.name} takes exactly {shape[0]} rows; export it with a dynamic first dimension"
        )
    return _NUMBERS[tensor.elem_type], shape


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _output(graph: onnx.GraphProto, wanted: str | None) -> tuple[str, bool]:
    """The name of the score's output, and whether its last column is meant."""
    zipped = {name for node in graph.node if node.op_type == "ZipMap" for name in node.output}
    names = [value.name for value in graph.output]
    scores = [v.name for v in graph.output if v.name in zipped or v.type.tensor_type.elem_type in _SCORES]
    if wanted is not None:
        if wanted not in names:
            raise ModelRefused(f"the model has no output {wanted!r}; it has {', '.join(names)}")
        if wanted not in scores:
            raise ModelRefused(f"output {wanted} is not a tensor of numbers; name another one")
        return wanted, False
    if len(names) == 1:
        if not scores:
            raise ModelRefused(
                f"output {names[0]} is not a tensor of numbers; export the model with its score"
            )
        return names[0], names[0] in zipped
    floats = [v.name for v in graph.output if v.name in zipped or v.type.tensor_type.elem_type in _FLOATS]
    likely = floats if len(floats) == 1 else [name for name in floats if "prob" in name.lower()]
    if len(likely) != 1:
        raise ModelRefused(
            f"the model has the outputs {', '.join(names)}; name the score with Pipeline(output=…)"
        )
    return likely[0], True


_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


def _keep_only(proto: onnx.ModelProto, output: str) -> None:
    """Cuts the graph down to what `output` needs; a ZipMap (a dict a row) gives way to its tensor."""
    graph = proto.graph
    for node in graph.node:
        if node.op_type == "ZipMap" and output in node.output:
            node.CopyFrom(
                onnx.helper.make_node("Identity", list(node.input), list(node.output), name=node.name)
            )
            if not any(opset.domain in ("", "ai.onnx") for opset in proto.opset_import):
                proto.opset_import.append(onnx.helper.make_opsetid("", 9))
            shown = onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])
            break
    else:
        shown = next(value for value in graph.output if value.name == output)
    shown = onnx.ValueInfoProto.FromString(shown.SerializeToString())
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            for inner in _messages(node):  # a subgraph also reads names of the graph around it
                if isinstance(inner, onnx.NodeProto):
                    needed.update(inner.input)
                elif isinstance(inner, onnx.GraphProto):
                    needed.update(value.name for value in inner.output)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:], graph.output[:]
    graph.node.extend(kept)
    graph.output.append(shown)
