"""`weir features backfill` and `weir features diff`: features from files, and what was logged beside them."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, progress, start, table

if TYPE_CHECKING:
    from streams.offline.backfill import Backfill
    from streams.offline.entity_times import AtTimes
    from streams.offline.rejects import Rejects


class Join(StrEnum):
    """What makes two rows one event."""

    place = "place"
    id = "id"


_IN_ORDER_S = 60
"""How far events may come behind later ones before it is worth a word."""

_PLACE = "Default: {} where the file has it."


def backfill(
    pipeline: PipelineArgument,
    input_: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="[NAME=]FILES",
            help="Parquet, CSV or JSON lines of a source (or of the labels), by its topic; a path, a pattern in quotes "
            "or a folder. Once for each; NAME may be left out where there is one source.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="DATASET", help="A Delta table (a folder), or a file that ends in .parquet.")
    ],
    at: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows of entities and times: values as of these, not per event.")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="Column with the records' timestamps. " + _PLACE.format("_timestamp"))
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="Column with the records' partitions. " + _PLACE.format("_partition"))
    ] = None,
    offset: Annotated[
        str | None, typer.Option(help="Column with the records' offsets. " + _PLACE.format("_offset"))
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort each file by this column first, in memory.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a pipeline's features from files, as the stream would have: a dataset to train on."""
    import time

    from models import tables
    from streams.errors import UsageError
    from streams.loading import load_pipeline
    from streams.offline.backfill import Backfill
    from streams.offline.columns import OFFSET, PARTITION, TIMESTAMP, Places
    from streams.offline.entity_times import AtTimes
    from streams.offline.files import file_input, inputs_of
    from streams.offline.labels import LabelTable
    from streams.offline.lineage import lineage_of
    from streams.offline.rejects import Rejects
    from streams.offline.rows import Reading

    start(report=True)
    loaded = load_pipeline(pipeline)
    topics = [source.topic for source in loaded.sources]
    labels = loaded.labels
    named = topics if labels is None or labels.topic in topics else [*topics, labels.topic]
    inputs = inputs_of(input_, named, topics[0] if len(topics) == 1 else None)
    tables.check_target(output)
    places = Places(timestamp or TIMESTAMP, partition or PARTITION, offset or OFFSET)
    reading = Reading(places, frozenset(filter(None, (timestamp, partition, offset))), sort)
    times = file_input("at", at, "--at") if at is not None else None
    if times is not None and (partition or offset):
        raise UsageError("--at reads the files in their order: --partition and --offset say nothing there")
    lineage = lineage_of(loaded, {**inputs, **({"at": times} if times is not None else {})})
    rejects_path = output.with_name(f"{output.name}.rejects.jsonl")
    began = time.monotonic()
    with Rejects(rejects_path) as rejects:
        work: Backfill | AtTimes
        if times is not None:
            work = AtTimes(loaded, inputs, times, reading, rejects.add)
        else:
            with_labels = labels is not None and labels.topic in inputs
            known = LabelTable(labels, inputs[labels.topic], reading, rejects.add) if labels and with_labels else None
            work = Backfill(loaded, inputs, reading, rejects.add, known)
        stored = tables.write(output, _counted(work, lineage, began), work.schema, lineage)
    report = {
        "pipeline": loaded.name,
        "spec_hash": loaded.spec.hash,
        "dataset": str(stored.path),
        "version": stored.version,
        "rows": work.rows,
        "events": work.events,
        "seconds": round(time.monotonic() - began, 3),
        **_noted(work),
        "rejected": _rejected(rejects),
        "rejects": str(rejects_path) if rejects.counts else None,
        "inputs": lineage["inputs"],
    }
    emit(report, as_json=as_json, text=None if as_json else _text(report))


def diff(
    pipeline: PipelineArgument,
    recomputed: Annotated[
        Path, typer.Option(metavar="DATASET", help="What weir features backfill made.", show_default=False)
    ],
    logged: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What was logged: an archive, a dataset or predictions (.jsonl). Default: the pipeline's archive.",
        ),
    ] = None,
    by: Annotated[
        Join, typer.Option(help="What makes two rows one event: the place of its record, or its id.")
    ] = Join.place,
    as_json: JsonOption = False,
) -> None:
    """Compare feature values that were logged with recomputed ones; ends with 1 where one differs that must not."""
    from streams.loading import load_pipeline
    from streams.monitor import archive_folder
    from streams.offline.diff import diff as compare
    from streams.offline.logged import logged as open_logged

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    path = logged or archive_folder(loaded, settings)
    found = compare(loaded, open_logged(loaded, path), open_logged(loaded, recomputed), by.value)
    report = {
        "pipeline": loaded.name,
        "logged": str(path),
        "recomputed": str(recomputed),
        "by": by.value,
        "rows": found.rows,
        "only_logged": found.only_logged,
        "only_recomputed": found.only_recomputed,
        "copies": found.copies,
        "exact": found.exact,
        "features": [
            {
                "feature": f.feature,
                "kind": f.kind,
                "mismatches": f.mismatches,
                "mismatch_ppm": f.ppm,
                "worst": f.worst,
                "example": f.example,
            }
            for f in found.features
        ],
    }
    emit(report, as_json=as_json, text=None if as_json else _diff_text(report))
    if not found.exact:
        raise typer.Exit(1)


def _diff_text(report: dict[str, Any]) -> str:
    lines = [
        f"{report['rows']:,} events on both sides; only logged {report['only_logged']:,}, only recomputed "
        f"{report['only_recomputed']:,}, copies left out {report['copies']:,}"
    ]
    if not report["rows"]:
        lines.append("nothing could be compared; are both sides of the same events? --by id joins by their ids")
    rows = [
        (
            f["feature"],
            f["kind"],
            f"{f['mismatches']:,}",
            f"{f['mismatch_ppm']:.6g}",
            _value(f["worst"]),
            _said(f["example"]),
        )
        for f in report["features"]
    ]
    lines.append(table(("feature", "", "mismatches", "per million", "worst", "such as"), rows))
    return "\n".join(lines)


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.7g}" if isinstance(value, float) else str(value)


def _said(example: dict[str, Any] | None) -> str:
    if example is None:
        return ""
    place = ", ".join(f"{name} {example[name]}" for name in example if name not in ("logged", "recomputed"))
    logged, recomputed = (_value(example[side]) or "none" for side in ("logged", "recomputed"))
    return f"{logged} logged, {recomputed} recomputed ({place})"


def _counted(work: Backfill | AtTimes, lineage: dict[str, Any], began: float) -> Any:
    """The frames, with progress on the way; what came of them is in the lineage at their end."""
    import time

    said = began
    for frame in work.frames():
        yield frame
        if time.monotonic() - said > 5:
            said = time.monotonic()
            progress(f"{work.events:,} events, {work.rows:,} rows")
    lineage.update(rows=work.rows, events=work.events, **_noted(work))


def _noted(work: Backfill | AtTimes) -> dict[str, Any]:
    """What a reader of the dataset should know of how it came about."""
    from streams.offline.backfill import Backfill

    if isinstance(work, Backfill):
        return {"late": work.late, "compute_failures": work.compute_failures, "labels": work.labelled}
    return {"left_out": sorted(work.left_out), "behind_s": work.behind_ms / 1000}


def _rejected(rejects: Rejects) -> list[dict[str, Any]]:
    return [
        {"source": source, "stage": stage, "reason": code, "rows": rows}
        for (source, stage, code), rows in sorted(rejects.counts.items())
    ]


def _text(report: dict[str, Any]) -> str:
    version = "" if report["version"] is None else f", version {report['version']}"
    lines = [f"{report['dataset']}{version}: {report['rows']:,} rows from {report['events']:,} events"]
    if report.get("labels") is not None:
        lines.append(f"{report['labels']:,} of the rows have a label")
    if report.get("left_out"):
        lines.append(f"left out, for the rows lack their fields: {', '.join(report['left_out'])}")
    if report.get("behind_s", 0) > _IN_ORDER_S:
        lines.append(
            f"events lie up to {report['behind_s']:,.0f} s behind others that stand before them: files are taken in "
            "their order, and --sort TIME brings them into that of time"
        )
    if report.get("late"):
        lines.append(table(("window", "events too late for it"), sorted(report["late"].items())))
    for name, events in (report.get("compute_failures") or {}).items():
        lines.append(f"{name}: its function failed on {events:,} events, which have no value for it")
    if report["rejected"]:
        total = Counter[str]()
        for found in report["rejected"]:
            total[found["source"]] += found["rows"]
        lines.append(f"{sum(total.values()):,} rows could not be used; see {report['rejects']}")
        columns = ("source", "stage", "reason", "rows")
        lines.append(table(columns, [[found[column] for column in columns] for found in report["rejected"]]))
    return "\n".join(lines)
