"""What a dataset says of where it came from; and whether it is of a pipeline's features."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from models.errors import DatasetError
from models.tables import Stored
from streams.offline.files import Input, sha256
from streams.pipeline import Pipeline
from streams.training import iso, revision


def lineage_of(pipeline: Pipeline, inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Pipeline, hash of the spec, code, and the digest of every input file, which is read once for it."""
    return {
        "pipeline": pipeline.name,
        "spec_hash": pipeline.spec.hash,
        "features": list(pipeline.spec.names),
        "code": revision(),
        "made": iso(time.time_ns() // 1_000_000),
        "inputs": [
            {"stream": name, "file": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
            for name, files in inputs.items()
            for path in files.paths
        ],
    }


def check_spec(pipeline: Pipeline, stored: Stored) -> None:
    """DatasetError where a dataset was made for other features than the pipeline's."""
    found = stored.lineage.get("spec_hash")
    if found is None:
        raise DatasetError(f"{stored.path} does not say which features it holds; make it with weir features backfill")
    if found == pipeline.spec.hash:
        return
    mine, theirs = set(pipeline.spec.names), set(stored.lineage.get("features", ()))
    differs = ", ".join(sorted(mine ^ theirs)) or "how one of them is computed"
    raise DatasetError(
        f"{stored.path} is of features {found}, pipeline {pipeline.name} has {pipeline.spec.hash}: they differ in "
        f"{differs}; run weir features backfill again"
    )
