from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from models.contract import read_contract
from models.errors import ModelRefused
from tests.models.graphs import graph_of, linear

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
AMOUNT = [("amount", FLOAT, ["n"])]


def refused(model: onnx.ModelProto | bytes, features: list[str], output: str | None = None) -> str:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ModelRefused) as error:
        read_contract(data, features, output)
    assert "\n" not in str(error.value)
    return str(error.value)


def identity(inputs, outputs=(("y", FLOAT, ["n"]),), **options):
    return graph_of([helper.make_node("Identity", [inputs[0][0]], ["y"])], inputs, outputs, **options)


def test_one_matrix_of_the_right_width_is_taken() -> None:
    contract = read_contract(linear([1, 2, 3]).SerializeToString(), ["a", "b", "c"])
    assert [(i.name, i.column) for i in contract.inputs] == [("x", None)]
    assert (contract.output, contract.last_column) == ("y", False)


def test_another_width_is_refused_with_both_counts_and_the_features() -> None:
    message = refused(linear([1, 2, 3]), ["a", "b"])
    assert "takes 3 features" in message
    assert "has 2 (a, b)" in message


def test_inputs_named_like_the_features_are_taken_in_any_order_and_number_type() -> None:
    inputs = [("hour", INT64, ["n", 1]), ("amount", DOUBLE, [None]), ("rate", FLOAT, ["n"])]
    contract = read_contract(identity(inputs).SerializeToString(), ["amount", "rate", "hour"])
    assert [(i.name, i.column, i.rank) for i in contract.inputs] == [
        ("hour", 2, 2),
        ("amount", 0, 1),
        ("rate", 1, 1),
    ]


def test_a_single_feature_may_be_a_named_input() -> None:
    (only,) = read_contract(identity(AMOUNT).SerializeToString(), ["amount"]).inputs
    assert (only.column, only.rank) == (0, 1)


def test_missing_and_extra_inputs_are_named() -> None:
    message = refused(identity([*AMOUNT, ("hour", FLOAT, ["n"])]), ["amount", "night"])
    assert "no input for night" in message
    assert "no feature hour" in message


def test_a_string_input_is_refused_with_the_mend() -> None:
    message = refused(identity([*AMOUNT, ("carrier", STRING, ["n"])]), ["amount", "carrier"])
    assert "input carrier takes strings" in message
    assert "code" in message


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([("x", FLOAT, [1, 2])], "dynamic first dimension"),
        ([("x", FLOAT, ["n", 2, 3])], "[n, 2], not [?, 2, 3]"),
        ([("x", TensorProto.FLOAT16, ["n", 2])], "float32, float64 or int64"),
        ([("a", FLOAT, ["n", 2]), ("b", FLOAT, ["n"])], "input a must have the shape [n] or [n, 1]"),
    ],
)
def test_shapes_and_types_that_cannot_be_fed_are_refused(inputs, said: str) -> None:
    assert said in refused(identity(inputs), ["a", "b"])


def test_weights_in_another_file_are_refused_wherever_they_hide() -> None:
    outside = onnx.TensorProto(name="secret", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    model = linear([1.0, 2.0])
    model.graph.initializer.append(outside)
    assert "'secret'" in refused(model, ["a", "b"])

    hidden = linear([1.0, 2.0])
    hidden.graph.node.append(helper.make_node("Constant", [], ["k"], value=outside))
    assert "external data" in refused(hidden, ["a", "b"])


@pytest.mark.parametrize(
    ("op", "domain", "said"),
    [("EPContext", "com.microsoft", "EPContext"), ("Evil", "my.ops", "my.ops.Evil")],
)
def test_compiled_and_custom_operators_are_refused_even_in_a_subgraph(
    op: str, domain: str, said: str
) -> None:
    node = helper.make_node(op, ["x"], ["t"], domain=domain)
    top = linear([1.0, 2.0])
    top.graph.node.append(node)
    assert said in refused(top, ["a", "b"])

    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("t", FLOAT, None)])
    nested = linear([1.0, 2.0])
    nested.graph.node.append(helper.make_node("If", ["y"], ["i"], then_branch=branch, else_branch=branch))
    assert said in refused(nested, ["a", "b"])


def test_a_function_that_the_model_brings_along_is_taken() -> None:
    twice = helper.make_function(
        "local",
        "Twice",
        ["p"],
        ["q"],
        [helper.make_node("Add", ["p", "p"], ["q"])],
        [helper.make_opsetid("", 17)],
    )
    model = graph_of(
        [helper.make_node("Twice", ["x"], ["y"], domain="local")],
        [("x", FLOAT, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
        opsets=[helper.make_opsetid("local", 1)],
        functions=[twice],
    )
    assert read_contract(model.SerializeToString(), ["a"]).output == "y"


@pytest.mark.parametrize("data", [b"", b"not a model", linear([1.0]).SerializeToString()[:-20]])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    assert "not an ONNX" in refused(data, ["a"])


def two_outputs(*outputs):
    nodes = [helper.make_node("Identity", ["x"], [name]) for name, _, _ in outputs]
    return graph_of(nodes, [("x", FLOAT, ["n", 2])], outputs)


def test_the_score_is_the_declared_output() -> None:
    model = two_outputs(("first", FLOAT, ["n", 2]), ("second", FLOAT, ["n", 2])).SerializeToString()
    contract = read_contract(model, ["a", "b"], "second")
    assert (contract.output, contract.last_column) == ("second", False)
    assert [o.name for o in onnx.load_model_from_string(contract.graph).graph.output] == ["second"]


def test_the_score_is_the_last_column_of_probabilities_beside_a_label() -> None:
    model = two_outputs(("label", INT64, ["n"]), ("scores", FLOAT, ["n", 2])).SerializeToString()
    contract = read_contract(model, ["a", "b"])
    assert (contract.output, contract.last_column) == ("scores", True)


def test_outputs_that_leave_the_score_open_are_refused() -> None:
    model = two_outputs(("first", FLOAT, ["n", 2]), ("second", FLOAT, ["n", 2]))
    assert "first, second; name the score" in refused(model, ["a", "b"])
    assert "no output 'third'; it has first, second" in refused(model, ["a", "b"], "third")


def test_labels_that_are_strings_are_no_score() -> None:
    model = two_outputs(("label", STRING, ["n"]))
    assert "not a tensor of numbers" in refused(model, ["a", "b"])
    assert "not a tensor of numbers" in refused(model, ["a", "b"], "label")


def test_a_zipmap_gives_way_to_its_tensor_and_nodes_for_the_label_go() -> None:
    model = graph_of(
        [
            helper.make_node("Softmax", ["x"], ["p"]),
            helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
            helper.make_node(
                "ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            ),
        ],
        [("x", FLOAT, ["n", 2])],
        [("label", INT64, ["n"]), ("output_probability", FLOAT, None)],
    )
    model.graph.output[1].ClearField("type")
    contract = read_contract(model.SerializeToString(), ["a", "b"])
    kept = onnx.load_model_from_string(contract.graph).graph
    assert [node.op_type for node in kept.node] == ["Softmax", "Identity"]
    assert (contract.output, contract.last_column) == ("output_probability", True)
