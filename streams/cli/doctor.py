"""`weir doctor`: is everything there that a pipeline needs?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.output import JsonOption, emit, start, table

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    pipeline: Annotated[
        str | None,
        typer.Argument(metavar="[PIPELINE]", help="Also look at this pipeline's topics.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, its settings and the servers; exit code 1 if something must be mended."""
    from rich.text import Text

    from streams.cli import checks
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline) if pipeline else None
    found = [
        *checks.check_installation(),
        *checks.check_settings(settings),
        *checks.check_broker(settings, loaded),
        *checks.check_redis(settings),
        *checks.check_registry(settings, loaded.model if loaded else "models"),
        *checks.check_onnx(settings),
        *checks.check_kernels(),
    ]
    failed = sum(check.state == "fail" for check in found)
    warned = sum(check.state == "warn" for check in found)
    report = {
        "ok": not failed,
        "failed": failed,
        "warnings": warned,
        "checks": [asdict(check) for check in found],
    }
    text = None
    if not as_json:
        rows = [(c.name, Text(c.state, style=_COLOURS[c.state]), c.found, c.mend) for c in found]
        text = table(("check", "", "found", "mend"), rows) + f"\n\n{failed} to mend, {warned} to know of"
    emit(report, as_json=as_json, text=text)
    if failed:
        raise typer.Exit(1)
