"""A new engine has compiled what its worker will need: later, a round or a checkpoint would wait for it."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
from examples.payments.pipeline import pipeline
from features import codec
from features.engine import FeatureEngine
from features.memory_store import MemoryStore

FeatureEngine(pipeline.spec, MemoryStore())
print(len(codec._fold.signatures), len(codec._lay_out.signatures))
"""


def test_what_packs_and_unpacks_rows_is_compiled_with_the_engine() -> None:
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.split() == ["1", "1"]
