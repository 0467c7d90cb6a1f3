"""Weir's wiring: pipelines over Kafka. What a user's file imports is here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.spec import Frequency, Hashed, Vocabulary
    from monitors.rules import Rule
    from monitors.watch import Watch
    from streams.declared import compute, ratio
    from streams.declared_loop import Blocks, Retrain, Rollout
    from streams.errors import DeclarationError, UsageError, WeirError
    from streams.event import Event
    from streams.pipeline import Labels, Pipeline
    from streams.source import Source

__all__ = [
    "Blocks",
    "DeclarationError",
    "Event",
    "Frequency",
    "Hashed",
    "Labels",
    "Pipeline",
    "Retrain",
    "Rollout",
    "Rule",
    "Source",
    "UsageError",
    "Vocabulary",
    "Watch",
    "WeirError",
    "compute",
    "ratio",
]

# Imported on first use: `weir --help` need not wait for numpy.
_HOMES = {
    "features.spec": ("Frequency", "Hashed", "Vocabulary"),
    "monitors.rules": ("Rule",),
    "monitors.watch": ("Watch",),
    "streams.declared": ("compute", "ratio"),
    "streams.declared_loop": ("Blocks", "Retrain", "Rollout"),
    "streams.errors": ("DeclarationError", "UsageError", "WeirError"),
    "streams.event": ("Event",),
    "streams.pipeline": ("Labels", "Pipeline"),
    "streams.source": ("Source",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'streams' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
