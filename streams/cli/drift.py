"""`weir drift`: what has drifted, and what says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, start, table, utc

if TYPE_CHECKING:
    from monitors.loop import Drift, RetrainEvent

app = typer.Typer(help="Drift events of a pipeline: list them, show one.", no_args_is_help=True)


@app.command("list")
def list_drifts(
    pipeline: PipelineArgument,
    signal: Annotated[
        str | None,
        typer.Option(help="Only of these signals, for example loss or 'feature.*'.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Drift events, oldest first, each with the retrain event that it led to."""
    from fnmatch import fnmatchcase

    loaded, drifts, retrains = _read(pipeline)
    found = [drift for drift in drifts if signal is None or fnmatchcase(drift.signal, signal)]
    listed = [_described(drift, retrains) for drift in found]
    text = None
    if not as_json:
        columns = ("id", "found (UTC)", "signal", "detector", "statistic", "threshold", "before", "after", "retrain")
        text = table(columns, [_row(one) for one in listed]) if listed else f"{loaded} has no such drift"
    emit({"pipeline": loaded, "drifts": listed}, as_json=as_json, text=text)


@app.command("show")
def show(
    pipeline: PipelineArgument,
    drift: Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """All that a drift event says."""
    from streams.errors import WeirError

    loaded, drifts, retrains = _read(pipeline)
    meant = [one for one in drifts if one.id == drift] or [one for one in drifts if one.id.startswith(drift)]
    if len(meant) != 1:
        what = f"{len(meant)} drifts have ids that begin so: give more of it" if meant else "there is no such drift"
        raise WeirError(f"drift {drift}: {what}; weir drift list names them all")
    (found,) = (_described(one, retrains) for one in meant)
    text = None
    if not as_json:
        said = {
            "found": f"{utc(found['time'])} UTC",
            **{name: found[name] for name in ("signal", "detector")},
            "statistic": f"{found['statistic']:.6g}, beyond the threshold {found['threshold']:.6g}",
            "severity": f"{found['severity']:.2f}",
            "blocks": f"{found['first']} to {found['last']}",
            **{side: _side(found[side]) for side in ("before", "after")},
            "retrain": found["retrain"] or "none",
        }
        text = table(("drift", found["id"]), said.items())
    emit({"pipeline": loaded, "drift": found}, as_json=as_json, text=text)


def _read(pipeline: str) -> tuple[str, list[Drift], list[RetrainEvent]]:
    from streams.cli.servers import read_loop
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    with read_loop(loaded, settings) as reader:
        return loaded.name, reader.drifts(), reader.retrains()


def _described(drift: Drift, retrains: list[RetrainEvent]) -> dict[str, Any]:
    """The drift event, and the id of the first retrain event that it caused, or None."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(drift)
    return {**found, "retrain": next((event.id for event in retrains if drift.id in event.drifts), None)}


def _row(drift: dict[str, Any]) -> tuple[object, ...]:
    return (
        drift["id"],
        utc(drift["time"]),
        drift["signal"],
        drift["detector"],
        f"{drift['statistic']:.4g}",
        f"{drift['threshold']:.4g}",
        f"{drift['before']['mean']:.4g}",
        f"{drift['after']['mean']:.4g}",
        drift["retrain"],
    )


def _side(side: dict[str, Any]) -> str:
    return f"mean {side['mean']:.6g} over {side['blocks']} blocks, {side['n']:,} events"
