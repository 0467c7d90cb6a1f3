"""What every command shares: its settings and logs, its report, and how an error ends it.

Reports go to stdout (with --json one JSON object), everything else to stderr. Exit codes: 0 done, 1 failed,
2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from streams.errors import WeirError

if TYPE_CHECKING:
    from streams.settings import Settings

PipelineArgument = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="package.module:object, path/file.py[:object] or file.yaml",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]

INTERRUPTED = 130
_UNBROKEN = 10_000


class WeirGroup(TyperGroup):
    """Turns what a command raises into one line on stderr and an exit code; never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WeirError as error:
            raise _failed(str(error), error.exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):  # typer's own, for wrong arguments: it shows the usage
                raise
            if _is_for_users(error):
                raise _failed(str(error), 1) from error
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise _failed(f"internal error: {text} (WEIR_LOG_LEVEL=debug shows where)", 1) from error


def start(*, report: bool = False, role: str | None = None) -> Settings:
    """Settings of the environment, with logging set up. A report's stderr is for progress: warnings only.

    role: what a process that stays is called in its log lines.
    """
    from streams.logs import configure_logs
    from streams.settings import load_settings

    settings = load_settings()
    level = "warning" if report and settings.log_level == "info" else settings.log_level
    configure_logs(level, settings.log_format, role=role)
    return settings


def progress(text: str) -> None:
    """A line for the person who waits."""
    typer.echo(text, err=True)


def emit(report: Mapping[str, Any], *, as_json: bool, text: str | None = None) -> None:
    """The command's result: one JSON object, or `text` for people."""
    typer.echo(json.dumps(report, default=str, allow_nan=False) if as_json or text is None else text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under columns, for a terminal as wide as it is; elsewhere no line is broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else _UNBROKEN)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def utc(time_ms: float | None) -> str:
    """A time in ms since 1970 for people, in UTC; nothing for None."""
    from datetime import UTC, datetime

    return "" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _is_for_users(error: Exception) -> bool:
    """Whether its package says it in one line for users; a package that is not imported raised nothing."""
    bases = (
        ("models.errors", "ModelError"),
        ("features.store", "StoreUnavailable"),
        ("features.store", "StoreMisconfigured"),
    )
    return any(
        module in sys.modules and isinstance(error, getattr(sys.modules[module], name)) for module, name in bases
    )


def _failed(message: str, code: int) -> typer.Exit:
    logging.getLogger("weir").debug("command failed", exc_info=True)
    typer.secho(" ".join(message.split()), err=True, fg="red")
    return typer.Exit(code)
