"""The fault suite: `python -m tests.faults [--long] [--only NAME] [--json]`. Exits 1 where a scenario fails."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.runs import run
from tests.faults.scenarios import SCENARIOS
from tests.faults.system import Grounds
from tests.faults.table import Row, Scenario, render


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill everything, and count.")
    parser.add_argument("--long", action="store_true", help="the long forms: hours")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=sorted(SCENARIOS), help="this one; again for more"
    )
    parser.add_argument("--count", type=int, help="how often each fault is done, instead of its form's number")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and data there")
    parser.add_argument("--lanes", type=int, default=2, help="scenarios at a time (default 2)")
    given = parser.parse_args()
    chosen = [
        scenario
        for name, scenario in SCENARIOS.items()
        if (name in given.only if given.only else given.long or scenario.short)  # some have only a long form
    ]
    found: dict[str, Row] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with Grounds(folder, long=given.long) as grounds:

            def one(scenario: Scenario) -> None:
                began = time.monotonic()
                count = given.count or (scenario.long if given.long else scenario.short)
                row = found[scenario.name] = run(scenario, grounds, count)
                said = "ok" if row.ok else "FAILED: " + "; ".join(row.problems)
                print(f"{scenario.name}: {time.monotonic() - began:.0f} s {said}", file=sys.stderr, flush=True)
                with (folder / "rows.jsonl").open("a") as file:  # hours of work, should the rest be cut short
                    file.write(json.dumps(row.as_json()) + "\n")

            with ThreadPoolExecutor(given.lanes) as lanes:
                # The longest first, so that no lane is left with one at the end.
                shared = [scenario for scenario in chosen if not scenario.alone]
                for done in [lanes.submit(one, scenario) for scenario in sorted(shared, key=lambda s: -s.lasts)]:
                    done.result()
            for scenario in chosen:
                if scenario.alone:
                    one(scenario)
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    rows = [found[scenario.name] for scenario in chosen]
    print(json.dumps([row.as_json() for row in rows], indent=2) if given.json else render(rows), flush=True)
    for row in rows:  # at the end again: of a long log that is what is looked at first
        for problem in row.problems:
            print(f"FAILED {row.fault}: {problem}", file=sys.stderr)
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
