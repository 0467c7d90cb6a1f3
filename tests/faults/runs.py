"""One scenario, whatever comes of it, as a row."""

from __future__ import annotations

from tests.faults.system import Failed, Grounds
from tests.faults.table import Row, Scenario


def run(scenario: Scenario, grounds: Grounds, count: int) -> Row:
    """A scenario that cannot go on is a row that says so; the brokers are whole again afterwards."""
    try:
        return scenario.run(grounds, count)
    except (Failed, AssertionError) as error:
        return Row(scenario.fault, count, problems=[str(error)])
    except Exception as error:
        return Row(scenario.fault, count, problems=[f"{type(error).__name__}: {error}"])
    finally:
        grounds.mend()
