"""The declarations in docs/pipelines.md load, and give the same events and names in both forms."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from streams.loading import load_pipeline

DOC = (Path(__file__).parents[2] / "docs/pipelines.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOC, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_examples_of_the_reference_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "rules", raising=False)
    Path("fraud.py").write_text(block("python"))
    Path("fraud.yaml").write_text(block("yaml"))
    Path("rules.py").write_text("def night(c): return c['ts'] // 3_600_000 % 24 < 6\n")
    in_python, in_yaml = load_pipeline("fraud.py"), load_pipeline("fraud.yaml")
    assert in_python.lead.stream.fields == in_yaml.lead.stream.fields
    # YAML shows how each kind is written, Python the least.
    assert {"user_id_last_amount", "hour", "share"} <= set(in_yaml.spec.names) - set(in_python.spec.names)
    assert set(in_python.spec.names) - set(in_yaml.spec.names) == {"user_id_merchant_count_7d"}
    assert in_yaml.labels is not None
    assert in_python.labels is not None
    assert in_yaml.labels.stream == in_python.labels.stream
