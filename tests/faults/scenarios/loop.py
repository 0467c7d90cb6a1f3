"""The loop's processes are killed around a drift: one drift event, one retrain event, one version, one deployment."""

from __future__ import annotations

import random

from tests.faults.looping import ROLES, Looping
from tests.faults.system import Grounds
from tests.faults.table import Row, scenario

_FAULT = "monitor, trainer and worker kill -9 around a drift"


@scenario("loop-kill", _FAULT, short=3, long=20, lasts=200)
def loop_kill(grounds: Grounds, count: int) -> Row:
    """Kills spread over the feed, in turns; the trainer's come, as long as they can, while it trains."""
    row = Row(_FAULT, count)
    draw = random.Random(count)
    killed, in_training = 0, set()
    with Looping(grounds) as system:
        while system.send(draw.uniform(0.2, 1.5)):
            if killed * len(system.records) >= count * system.sent:
                continue
            role = ROLES[(killed + 1) % len(ROLES)]
            if role == "trainer":
                training = system.training()
                if training in in_training:
                    continue  # an event is taken up again once
                in_training |= {training} - {""}
            system.kill(role)
            killed += 1
        system.settled()
        row.notes.append(f"{killed} kills, {len(in_training)} of them in a training")
        if not in_training:
            row.problems.append("vacuous: no training was hit")
        return system.verify(row)
