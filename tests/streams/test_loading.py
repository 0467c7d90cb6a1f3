"""What a command may name as a pipeline, and what it says when that cannot be loaded."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import UsageError
from streams.loading import load_function, load_pipeline

GOOD = """
from streams import Event, Pipeline, Source

class Payment(Event):
    user_id: str
    amount: float
    ts: int

payments = Source("payments", Payment, key="user_id", time="ts")
fraud = Pipeline("fraud", score=payments, features=[payments.field("amount")], model="fraud")
"""


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test imports its own files: they lie in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return name


def message(where: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_pipeline(where)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_only_pipeline_of_a_file_needs_no_name() -> None:
    write("fraud.py", GOOD)
    assert load_pipeline("fraud.py").name == "fraud"
    assert load_pipeline("fraud.py:fraud").name == "fraud"


def test_a_pipeline_may_be_an_object_of_a_module() -> None:
    write("stall/__init__.py", "")
    write("stall/fraud.py", GOOD)
    assert load_pipeline("stall.fraud:fraud").name == "fraud"
    assert load_pipeline("stall.fraud").name == "fraud"


def test_a_pipeline_under_two_names_is_one() -> None:
    write("fraud.py", GOOD + "alias = fraud\n")
    assert load_pipeline("fraud.py").name == "fraud"


def test_a_file_imports_its_neighbours() -> None:
    write("shop/neighbour_of_fraud.py", 'TOPIC = "payments"\n')
    write("shop/fraud.py", "from neighbour_of_fraud import TOPIC\n" + GOOD.replace('"payments"', "TOPIC"))
    assert load_pipeline("shop/fraud.py").lead.topic == "payments"


def test_a_file_called_like_one_of_our_packages_or_of_pythons_shadows_nothing() -> None:
    for name in ("features", "json"):
        write(f"{name}.py", GOOD)
        assert load_pipeline(f"{name}.py").name == "fraud"
    assert hasattr(sys.modules["json"], "dumps")
    assert not hasattr(sys.modules["features"], "fraud")


def test_annotations_may_be_postponed() -> None:
    write("fraud.py", "from __future__ import annotations\n" + GOOD)
    assert load_pipeline("fraud.py").name == "fraud"


def test_a_syntax_error_is_said_with_its_line() -> None:
    write("bad.py", "x = 1\nclass Payment(Event:\n")
    assert message("bad.py").startswith("bad.py:2: ")


def test_an_exception_of_the_file_is_said_with_its_line_and_kind() -> None:
    write("bad.py", "x = 1\ny = {}['no']\n")
    assert message("bad.py") == "bad.py:2: KeyError: 'no'"


def test_an_exception_in_a_neighbour_is_said_with_the_neighbours_line() -> None:
    write("broken_neighbour.py", "x = 1\n\ny = 1 / 0\n")
    write("bad.py", "import broken_neighbour\n")
    assert message("bad.py") == "broken_neighbour.py:3: ZeroDivisionError: division by zero"


def test_an_impossible_declaration_is_said_with_the_line_that_declares_it() -> None:
    lines = GOOD.replace('payments.field("amount")', '\n    payments.field("amout"),\n')
    write("fraud.py", lines)
    number = 1 + lines.lstrip("\n").splitlines().index('    payments.field("amout"),')
    expected = f"fraud.py:{number}: feature amout: payments has no field 'amout'; did you mean 'amount'?"
    assert message("fraud.py") == expected


def test_an_import_that_is_missing_is_said_with_its_line() -> None:
    write("bad.py", "x = 1\nimport no_such_package_here\n")
    assert message("bad.py") == "bad.py:2: No module named 'no_such_package_here'"


def test_a_file_that_ends_the_process_is_wrong_use() -> None:
    write("bad.py", "raise SystemExit(0)\n")
    assert message("bad.py") == "bad.py:1: SystemExit: 0"


def test_two_pipelines_in_a_file_must_be_told_apart() -> None:
    second = 'risk = Pipeline("risk", score=payments, features=[payments.field("amount")], model="risk")\n'
    write("two.py", GOOD + second)
    assert message("two.py") == "two.py declares 2 pipelines: fraud, risk; write two.py:fraud"
    assert load_pipeline("two.py:risk").name == "risk"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("none.py", "there is no file none.py"),
        ("none.yaml", "none.yaml: No such file or directory"),
        ("fraud.py:fraudd", "fraud.py has no 'fraudd'; did you mean 'fraud'?"),
        ("fraud.py:payments", "fraud.py:payments is not a Pipeline; its type is Source"),
        ("empty.py", "empty.py declares no Pipeline"),
        ("no_such_module:p", "there is no module no_such_module; run weir where it can be imported"),
        ("fraud pipeline", "'fraud pipeline' is neither a module nor a file that ends in .py or .yaml"),
        ("fraud.py:", "'fraud.py:': write package.module:object, path/file.py[:object] or file.yaml"),
        ("", "'': write package.module:object, path/file.py[:object] or file.yaml"),
    ],
)
def test_what_names_no_pipeline_is_said(where: str, expected: str) -> None:
    write("fraud.py", GOOD)
    write("empty.py", "x = 1\n")
    assert message(where) == expected


def test_functions_are_found_by_module_and_name() -> None:
    assert load_function("os.path:join")("a", "b") == "a/b"
    with pytest.raises(UsageError, match=r"os\.path has no 'joinn'; did you mean 'join'\?"):
        load_function("os.path:joinn")
    with pytest.raises(UsageError, match="os:sep is not a function; its type is str"):
        load_function("os:sep")
    with pytest.raises(UsageError, match="names no function; write module:function"):
        load_function("os.path")
