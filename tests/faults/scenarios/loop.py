"""The loop's processes are killed around a drift: one drift event, one retrain event, one version, one deployment."""

from __future__ import annotations

import random
import time

from tests.faults.looping import ROLES, Looping
from tests.faults.system import Grounds
from tests.faults.table import Row, scenario

_FAULT = "monitor, trainer and worker kill -9 around a drift"


@scenario("loop-kill", _FAULT, short=0, long=20, lasts=200)
def loop_kill(grounds: Grounds, count: int) -> Row:
    """Kills spread over the feed, in turns; the trainer's come, once for each event, while it trains.

    The feed waits for blocks and trainings, which take longer than hours of its time.
    """
    row = Row(_FAULT, count)
    draw = random.Random(count)
    killed = 0
    in_training: set[str] = set()
    with Looping(grounds) as system:
        while system.ahead() or system.working_off() or system.send(draw.uniform(0.2, 1.0)):
            training = system.training()
            if training and training not in in_training:
                time.sleep(draw.uniform(0.0, 4.0))
                system.kill("trainer")
                in_training.add(training)
                killed += 1
            elif not training and killed * len(system.records) < count * system.sent:
                system.kill(ROLES[killed % len(ROLES)])
                killed += 1
        while killed < count:
            system.kill(ROLES[killed % len(ROLES)])
            killed += 1
            time.sleep(2.0)
        system.settled()
        row.notes.append(f"{killed} kills, {len(in_training)} of them in a training")
        if not in_training:
            row.problems.append("vacuous: no training was hit")
        return system.verify(row)
