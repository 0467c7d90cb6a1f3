from __future__ import annotations

import inspect

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state

from models import runner as runner_module
from models.errors import ModelFailed, ModelRefused
from models.runner import _ERRORS, CPU, CUDA, Runner, available_providers, providers_of, starts
from models.sizes import SIZES
from tests.models.graphs import graph_of, linear, mlp

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NAMES = ["f0", "f1", "f2", "f3"]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6000, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(rows: np.ndarray) -> np.ndarray:
    return (rows[:, 0] + np.random.default_rng(2).normal(size=len(rows)) > 0).astype(int)


@pytest.fixture(scope="module")
def converted(rows: np.ndarray, labels: np.ndarray):
    """name → (ONNX file with label and ZipMap as converters make it, probabilities [n] of the library)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightgbm
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
        from skl2onnx import to_onnx
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
        forest = RandomForestClassifier(20, max_depth=6, random_state=0).fit(rows, labels)
        boosted = lightgbm.LGBMClassifier(n_estimators=50, verbose=-1, n_jobs=1).fit(rows, labels)
        lgbm = convert_lightgbm(boosted, initial_types=[("input", FloatTensorType([None, 4]))])
        return {
            "logistic": (to_onnx(logistic, rows[:1]).SerializeToString(), logistic.predict_proba(rows)[:, 1]),
            "forest": (to_onnx(forest, rows[:1]).SerializeToString(), forest.predict_proba(rows)[:, 1]),
            "lightgbm": (lgbm.SerializeToString(), boosted.predict_proba(rows)[:, 1]),
        }


@pytest.mark.parametrize("name", ["logistic", "forest", "lightgbm"])
def test_models_of_the_converters_give_the_librarys_probabilities(converted, rows, name: str) -> None:
    model, expected = converted[name]
    assert b"ZipMap" in model
    scores = Runner(model, NAMES).run(rows)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["mlp", "logistic", "forest", "lightgbm"])
def test_a_rows_score_is_the_same_to_the_bit_in_a_batch_of_any_size(
    converted, rows, name: str, threads: int
) -> None:
    model = mlp([4, 64, 32, 1]) if name == "mlp" else converted[name][0]
    runner = Runner(model, NAMES, threads=threads)
    whole = runner.run(rows)
    for size in (1, 3, 64, 100, 1000, 4096):
        start = max(0, len(rows) - 40 * size)
        parts = [runner.run(rows[i : i + size]) for i in range(start, len(rows), size)]
        assert np.concatenate(parts).tobytes() == whole[start:].tobytes(), f"batches of {size}"


def test_a_batch_above_the_largest_size_is_cut_and_no_rows_are_no_scores(rows) -> None:
    runner = Runner(linear([1, 0, 0, 0]).SerializeToString(), NAMES, sizes=(2, 8))
    expected = 1 / (1 + np.exp(-rows[:21, 0]))
    np.testing.assert_allclose(runner.run(rows[:21]), expected, rtol=1e-6)
    assert runner.run(rows[:0]).shape == (0,)


def test_rows_of_a_larger_batch_do_not_leak_into_a_smaller_one() -> None:
    runner = Runner(linear([1.0]).SerializeToString(), ["a"], sizes=(8,))
    runner.run(np.full((7, 1), 5, dtype=np.float32))
    assert runner.run(np.zeros((1, 1), dtype=np.float32)).tolist() == [0.5]


def test_a_model_with_several_scores_gives_them_all(rows) -> None:
    runner = Runner(mlp([4, 8, 3]), NAMES)
    assert runner.width == 3
    assert runner.run(rows[:5000]).shape == (5000, 3)


def test_inputs_by_name_get_their_columns_in_their_own_types() -> None:
    model = graph_of(
        [
            helper.make_node("Cast", ["hour"], ["h"], to=FLOAT),
            helper.make_node("Cast", ["amount"], ["a"], to=FLOAT),
            helper.make_node("Squeeze", ["h", "axis"], ["hs"]),
            helper.make_node("Sub", ["a", "hs"], ["y"]),
        ],
        [("hour", INT64, ["n", 1]), ("amount", TensorProto.DOUBLE, ["n"])],
        [("y", FLOAT, ["n"])],
        {"axis": np.array([1], dtype=np.int64)},
    )
    runner = Runner(model.SerializeToString(), ["amount", "hour"])
    rows = np.array([[7.5, 2], [1, np.nan], [np.nan, 3]], dtype=np.float32)
    first, no_hour, no_amount = runner.run(rows)
    assert first == 5.5
    assert np.isnan(no_hour), "an integer input cannot be asked without a value"
    assert np.isnan(no_amount)


def test_missing_values_reach_the_model() -> None:
    model = graph_of(
        [helper.make_node("IsNaN", ["x"], ["m"]), helper.make_node("Cast", ["m"], ["y"], to=FLOAT)],
        [("x", FLOAT, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
    )
    runner = Runner(model.SerializeToString(), ["a"])
    assert runner.run(np.array([[np.nan], [1]], dtype=np.float32)).tolist() == [1, 0]


def test_a_graph_that_onnx_runtime_cannot_load_is_refused_on_one_line() -> None:
    model = linear([1.0, 2.0])
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelRefused, match="ONNX Runtime cannot load the model: .*NoSuchOperator") as error:
        Runner(model.SerializeToString(), ["a", "b"])
    assert "\n" not in str(error.value)


def test_a_model_whose_output_has_another_number_of_rows_is_refused() -> None:
    model = graph_of(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)],
        [("x", FLOAT, ["n", 2])],
        [("y", FLOAT, None)],
    )
    with pytest.raises(
        ModelRefused, match=r"output y has the shape \[2\] for 64 rows; it must be \[n\] or \[n, k\]"
    ):
        Runner(model.SerializeToString(), ["a", "b"])


def test_a_model_that_raises_on_some_rows_has_failed_and_still_scores_others() -> None:
    model = graph_of(  # looks up a table of two by the feature
        [helper.make_node("Cast", ["x"], ["i"], to=INT64), helper.make_node("Gather", ["table", "i"], ["y"])],
        [("x", FLOAT, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
        {"table": np.array([0.25, 0.75], dtype=np.float32)},
    )
    runner = Runner(model.SerializeToString(), ["a"])
    with pytest.raises(ModelFailed, match="inference failed"):
        runner.run(np.array([[9]], dtype=np.float32))
    assert runner.run(np.array([[1]], dtype=np.float32)).tolist() == [0.75]


def test_a_matrix_of_another_width_has_failed() -> None:
    with pytest.raises(ModelFailed, match="takes 1 features"):
        Runner(linear([1.0]).SerializeToString(), ["a"]).run(np.zeros((3, 2), dtype=np.float32))


def test_the_provider_is_named() -> None:
    assert Runner(linear([1.0]).SerializeToString(), ["a"]).provider in (
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
    )


def test_providers_are_listed_by_their_names_in_order_of_preference() -> None:
    assert providers_of("") == ()
    assert providers_of(" cpu ") == providers_of("CPUExecutionProvider,CPU") == (CPU,)
    model = linear([2.0]).SerializeToString()
    runner = Runner(model, ["a"], providers=providers_of("CPU"))
    assert runner.provider == CPU
    ones = np.ones((3, 1), np.float32)
    np.testing.assert_array_equal(runner.run(ones), Runner(model, ["a"]).run(ones))


def test_a_provider_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ModelRefused, match=r"this ONNX Runtime has no provider 'TPU'; it has .*CPU"):
        providers_of("TPU,CPU")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_provider_that_does_not_start_is_refused_and_does_not_become_the_cpu(monkeypatch) -> None:
    """An ONNX Runtime that was built with CUDA, on a machine without: the session would take the CPU, silently."""
    assert not starts("NoSuchExecutionProvider")
    if not starts(CUDA):
        monkeypatch.setattr(runner_module, "available_providers", lambda: [CUDA, *available_providers()])
        with pytest.raises(ModelRefused, match="CUDAExecutionProvider does not start on this machine"):
            providers_of("CUDA,CPU")


def test_scores_by_bound_buffers_are_those_of_plain_calls(monkeypatch, rows) -> None:
    """As on CUDA, with the CPU's memory as the device's; the buffers are the runner's own, not the caller's."""
    model = mlp([4, 8, 3])
    plain = Runner(model, NAMES).run(rows)
    monkeypatch.setattr(runner_module, "_DEVICES", {CPU: "cpu"})
    bound = Runner(model, NAMES, providers=[CPU])
    assert bound._bound is not None
    before = rows.copy()
    for n in (4096, 1, 300, 6000, 64, 4096):
        np.testing.assert_array_equal(bound.run(rows[:n]), plain[:n])
    np.testing.assert_array_equal(rows, before)
    bound.release()


def test_columns_and_integers_reach_a_bound_model_too(monkeypatch) -> None:
    model = graph_of(
        [
            helper.make_node("Cast", ["hour"], ["h"], to=FLOAT),
            helper.make_node("Add", ["amount", "h"], ["y"]),
        ],
        [("amount", FLOAT, ["n", 1]), ("hour", INT64, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
        {},
    )
    monkeypatch.setattr(runner_module, "_DEVICES", {CPU: "cpu"})
    runner = Runner(model.SerializeToString(), ["amount", "hour"], providers=[CPU])
    given = np.array([[1.5, 2], [3.5, np.nan], [0.5, 7]], np.float32)
    np.testing.assert_array_equal(runner.run(given), np.array([3.5, np.nan, 7.5], np.float32))


def test_every_exception_of_onnx_runtime_is_mapped() -> None:
    raised = [
        e
        for _, e in inspect.getmembers(onnxruntime_pybind11_state, inspect.isclass)
        if issubclass(e, Exception)
    ]
    assert len(raised) >= 10
    assert set(raised) <= set(_ERRORS)


def test_no_size_is_small_enough_for_another_code_path() -> None:
    assert min(SIZES) >= 64
