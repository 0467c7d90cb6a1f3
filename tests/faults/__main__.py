"""The fault suite: `python -m tests.faults [--long] [--only NAME] [--json]`. Exits 1 where a scenario fails."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.runs import run
from tests.faults.scenarios import SCENARIOS
from tests.faults.system import Grounds
from tests.faults.table import Row, render


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill everything, and count.")
    parser.add_argument("--long", action="store_true", help="the long forms: hours")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=sorted(SCENARIOS), help="this one; again for more"
    )
    parser.add_argument("--count", type=int, help="how often each fault is done, instead of its form's number")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and data there")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with Grounds(folder) as grounds:
            for name, scenario in SCENARIOS.items():
                if given.only and name not in given.only:
                    continue
                began = time.monotonic()
                rows.append(run(scenario, grounds, given.count or (scenario.long if given.long else scenario.short)))
                said = "ok" if rows[-1].ok else "FAILED: " + "; ".join(rows[-1].problems)
                print(f"{name}: {time.monotonic() - began:.0f} s {said}", file=sys.stderr, flush=True)
    print(json.dumps([row.as_json() for row in rows], indent=2) if given.json else render(rows))
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
