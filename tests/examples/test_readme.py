"""The README does not drift: its code loads and runs, its commands, settings and files exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import typer

from models.dataset import Dataset
from models.runner import Runner
from streams.cli import app
from streams.loading import load_function, load_pipeline
from streams.pipeline import Pipeline
from streams.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NAMED = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
"""A file's name at the end of a paragraph, and the code block after it."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Pipeline]:
    """The README's files in a directory of their own, and the pipeline among them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, code in NAMED.findall(README):
        Path(name).write_text(code)
    yield load_pipeline("shop.py")
    sys.modules.pop("shop_train", None)


def commands() -> Iterator[list[str]]:
    """The words of each `weir …` in code and in code blocks, up to what is not a word or a path."""
    spans = re.findall(r"`(weir [^`\n]+)`", README)
    lines = [line for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    for text in [*spans, *(line.partition("#")[0] for line in lines if line.startswith("weir "))]:
        yield text.split()[1:]


def test_every_block_of_python_is_a_file_with_a_name() -> None:
    assert [name for name, _ in NAMED.findall(README)] == ["shop.py", "send.py", "read.py", "shop_train.py"]
    assert README.count("```python") == 4


def test_the_pipeline_loads_and_has_the_inputs_that_the_prediction_shows(shop: Pipeline) -> None:
    shown = re.search(r'"features": \{(.*?)\}', README, re.DOTALL)
    assert shown is not None
    assert re.findall(r'"(\w+)": ', shown[1]) == list(shop.spec.names)
    assert [source.topic for source in shop.sources] == ["shop.views", "shop.orders"]


def test_the_other_files_are_python_and_produce_what_the_pipeline_reads(shop: Pipeline) -> None:
    sender = Path("send.py").read_text()
    compile(sender, "send.py", "exec")
    compile(Path("read.py").read_text(), "read.py", "exec")
    assert shop.labels is not None
    sent = set(re.findall(r'send\("([\w.]+)"', sender))
    assert sent == {*(source.topic for source in shop.sources), shop.labels.topic}


def test_the_training_function_makes_a_model_that_can_be_served(shop: Pipeline) -> None:
    assert shop.retrain is not None
    draw = np.random.default_rng(7)
    matrix = draw.normal(size=(200, len(shop.spec.names))).astype(np.float32)
    matrix[::7, 0] = np.nan
    labels = (matrix[:, 1] > 0).astype(np.float64)
    times = np.arange(200, dtype=np.int64)
    data = Dataset(matrix, labels, times, tuple(map(str, times)), tuple(shop.spec.names), {}, "0" * 64)
    trained = load_function(shop.retrain.function)(data, Path("shop.onnx"), 7)
    assert trained.metrics["accuracy"] > 0.8
    runner = Runner(trained.path.read_bytes(), shop.spec.names, sizes=(1, 16))
    assert runner.run(matrix[:20]).shape == (20,)
    runner.release()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_of_the_readme_exists_with_its_options(words: list[str]) -> None:
    command = typer.main.get_command(app)
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and words[0] != "COMMAND":
        assert words[0] in command.commands
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word.strip("[]") for word in words if word.strip("[").startswith("--")} <= options


def test_the_settings_exist_and_have_the_defaults_that_are_shown() -> None:
    rows = re.findall(r"^\| `(WEIR_\w+)` \| (`[^`]+`)?", README, re.MULTILINE)
    assert len(rows) > 10
    fields = {PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
    for variable, default in rows:
        assert variable in fields
        assert not default or str(fields[variable].default) == default.strip("`"), variable
    for variable in re.findall(r"\bWEIR_[A-Z_]*[A-Z]\b", README):
        assert any(name.startswith(variable) for name in fields), variable


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    headings = {
        re.sub(r"[^\w ]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE)) <= {
        *((target, "") for target in targets),
        *(("", target) for target in targets),
    }
