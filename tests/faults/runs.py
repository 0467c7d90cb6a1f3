"""One scenario, whatever comes of it, as a row."""

from __future__ import annotations

from tests.faults.system import Failed, Grounds
from tests.faults.table import Row, Scenario


def run(scenario: Scenario, grounds: Grounds, count: int) -> Row:
    """A scenario that cannot go on is a row that says so.

    One that hit nothing, or did not come to its end in time, has proved nothing: it is run once more, and says so.
    """
    row = _run(scenario, grounds, count)
    if row.inconclusive:
        again = _run(scenario, grounds, count)
        first = "; ".join(problem.splitlines()[0][:200] for problem in row.problems)
        again.notes.append(f"run twice; the first time: {first}")
        return again
    return row


def _run(scenario: Scenario, grounds: Grounds, count: int) -> Row:
    """The brokers are whole again afterwards."""
    try:
        return scenario.run(grounds, count)
    except (Failed, AssertionError) as error:
        return Row(scenario.fault, count, problems=[str(error)])
    except Exception as error:
        return Row(scenario.fault, count, problems=[f"{type(error).__name__}: {error}"])
    finally:
        grounds.mend()
