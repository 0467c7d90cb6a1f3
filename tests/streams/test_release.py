"""What `weir models deploy` makes of the routing, for a pipeline with a roll-out and for one without."""

from __future__ import annotations

import pytest

from models import rollout
from models.rollout import Deployment
from streams import Event, Labels, Pipeline, Rollout, Source, release
from tests.models.test_rollout import version


class Payment(Event):
    id: str
    user: str
    amount: float
    fraud: bool
    ts: int


payments = Source("payments", Payment, key="user", id="id", time="ts")


class Routing:
    """The registry's routing alone."""

    def __init__(self) -> None:
        self.history: list[Deployment] = []

    def routing(self, model: str) -> Deployment | None:
        return self.history[-1] if self.history else None

    def set_routing(self, deployment: Deployment) -> None:
        self.history.append(deployment)


def pipeline(made: Rollout | None) -> Pipeline:
    labels = Labels("payments", Payment, id="id", value="fraud")
    features = [payments.field("amount")]
    return Pipeline("p", score=payments, features=features, model="fraud", labels=labels, rollout=made)


def deployed(made: Rollout | None, *numbers: int) -> tuple[Deployment, Routing]:
    registry = Routing()
    for number in numbers:
        deployment = release.deploy(pipeline(made), registry, version(number))  # type: ignore[arg-type]
    return deployment, registry


def test_without_a_roll_out_the_former_champion_goes() -> None:
    deployment, _ = deployed(None, 1, 2)
    assert (deployment.champion, deployment.shadows, deployment.previous) == (version(2), (), None)


@pytest.mark.parametrize(("keep", "first"), [(False, None), (True, "1")])
def test_with_a_roll_out_it_stays_for_the_guard(keep: bool, first: str | None) -> None:
    deployment, _ = deployed(Rollout(keep_first=keep), 1, 2)
    assert (deployment.champion, deployment.shadows) == (version(2), (version(1),))
    assert (deployment.previous, deployment.first, deployment.cause) == ("1", first, "deployed")
    assert rollout.roll_back_to_previous(deployment).champion == version(1)


@pytest.mark.parametrize("made", [None, Rollout()])
def test_deploying_the_champion_again_changes_nothing(made: Rollout | None) -> None:
    deployment, registry = deployed(made, 1, 2, 2)
    assert registry.history[-1] is deployment
    assert len(registry.history) == 2


def test_a_shadow_is_a_shadow_and_nothing_else() -> None:
    _, registry = deployed(Rollout(), 1)
    deployment = release.deploy(pipeline(Rollout()), registry, version(2), "shadow")  # type: ignore[arg-type]
    assert (deployment.shadows, deployment.candidate, deployment.previous) == ((version(2),), None, None)
