"""One scenario, whatever comes of it, as a row."""

from __future__ import annotations

from tests.faults.system import Failed, Grounds
from tests.faults.table import Row, Scenario


def run(scenario: Scenario, grounds: Grounds, count: int) -> Row:
    """A scenario that cannot go on is a row that says so; one that hit nothing has proved nothing, and is run again."""
    row = _run(scenario, grounds, count)
    if row.vacuous:
        again = _run(scenario, grounds, count)
        again.notes.append(f"run twice; the first time: {'; '.join(row.problems)}")
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
