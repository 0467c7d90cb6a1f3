"""The detectors measured, as docs/drift.md shows them.

python -m monitors.evaluate known              on river's generators, where the drift is known
python -m monitors.evaluate shuffled FOLDER    on an archive: the real year, and the year with its weeks shuffled
Both take --json. Of an archive, the days of the first score and after it are looked at apart for score and loss.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monitors.block import Block
from monitors.drift import DriftFold
from monitors.known_drift import outcomes
from monitors.loop import Drift
from monitors.shuffled import DAY_MS, Examples
from monitors.watch import DEFAULT_WATCHES, Watch, watched

JUDGED = ("score", "loss", "errors")
"""Signals that are there from the first score on."""
SETTINGS: dict[str, Sequence[Watch]] = {
    "default": DEFAULT_WATCHES,
    **{
        f"{name}, everything": [Watch("*", "feature.*", "null.*", detector=name)]
        for name in ("shift", "psi", "ks", "wasserstein", "adwin", "page_hinkley", "kswin")
    },
    **{
        f"{name}, everything": [Watch("errors", "label", "null.*", detector=name)]
        for name in ("ddm", "hddm_a", "hddm_w")
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monitors.evaluate", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("what", choices=("known", "shuffled"))
    parser.add_argument("folder", nargs="?", type=Path, help="an archive")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shuffles", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=tuple(SETTINGS), action="append", help="of the settings; shuffled")
    asked = parser.parse_args(arguments)
    if asked.what == "known":
        rows = [one._asdict() for one in outcomes(_say)]
        _print(rows, asked.json)
        return 0
    if asked.folder is None:
        parser.error("shuffled: name the archive's folder")
    _print(shuffled(asked.folder, asked.shuffles, asked.seed, asked.only or tuple(SETTINGS)), asked.json)
    return 0


def shuffled(folder: Path, shuffles: int, seed: int, names: Iterable[str]) -> list[dict[str, Any]]:
    """One row for each of the settings `names`: drift events on the real order and, mean, on the shuffled ones."""
    whole = Examples.of(folder)
    scored = whole.since(int(whole.day[np.isfinite(whole.score)].min()))
    parts = [(examples, [None, *examples.orders(shuffles, seed)]) for examples in (whole, scored)]
    runs = [[list(examples.blocks(order)) for order in orders] for examples, orders in parts]
    rows = []
    for name in names:
        _say(name)
        found = [
            [
                drift
                for part, judged in zip(runs, (False, True), strict=True)
                for drift in drifts(part[at], SETTINGS[name], whole, judged)
            ]
            for at in range(shuffles + 1)
        ]
        counts = [len(one) for one in found[1:]]
        rows.append(
            {
                "settings": name,
                "real": len(found[0]),
                "shuffled": round(float(np.mean(counts)), 2),
                "each": counts,
                "signals": dict(Counter(drift.signal for drift in found[0])),
                "events": [
                    {
                        "day": str(np.datetime64(drift.time - DAY_MS, "ms").astype("datetime64[D]")),
                        "signal": drift.signal,
                        "before": drift.before.mean,
                        "after": drift.after.mean,
                        "severity": round(drift.severity, 3),
                    }
                    for drift in sorted(found[0], key=lambda drift: (drift.time, drift.signal))
                ],
            }
        )
    return rows


def drifts(blocks: Iterable[Block], watches: Sequence[Watch], examples: Examples, judged: bool) -> list[Drift]:
    """The drift events of the signals that a model's scores bring (judged), or of the others."""
    kinds = examples.kinds
    kept = [
        Watch(signal, detector=watch.detector, **watch.parameters)
        for (signal, _), watch in watched(watches, kinds).items()
        if (signal in JUDGED) == judged
    ]
    fold = DriftFold("study", kept, kinds)
    return [drift for block in blocks for drift in fold.update(block)]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    names = [name for name in rows[0] if not isinstance(rows[0][name], list | dict)]
    lines = [names, ["---"] * len(names), *([_text(row[name]) for name in names] for row in rows)]
    sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
