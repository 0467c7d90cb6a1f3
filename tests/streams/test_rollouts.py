"""Roll-outs as blocks decide them: carried out once, whenever the trainer dies, and also beside another hand."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models import rollout
from models.errors import RegistryError
from models.registry import Registry
from models.rollout import Deployment, Version
from monitors.block import Block, Column, Paired, VersionLoss
from monitors.metrics import Metrics
from streams import release
from streams.embedded import start_embedded
from streams.errors import WeirError
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from streams.rollouts import Rollouts
from streams.routing import Routing, fitting
from streams.settings import Settings, load_settings
from tests.integration.outputs import Reader
from tests.models.graphs import linear
from tests.streams.retrained import DAY_MS, START, declare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str]]:
    """Settings with a registry on SQLite, which takes seconds to make, and an embedded broker's address."""
    folder = tmp_path_factory.mktemp("data")
    with start_embedded(folder) as pair:
        yield load_settings(data_dir=folder, broker="embedded", redis="embedded"), pair.broker


class Case:
    """A pipeline with three versions: "1" is champion, "2" its candidate."""

    def __init__(self, settings: Settings, broker: str) -> None:
        self.settings, self.broker, self.name = settings, broker, f"r{uuid.uuid4().hex[:8]}"
        self.pipeline: Pipeline = load_pipeline(str(declare(settings.data_dir / "declared", self.name)))
        self.registry = Registry(f"sqlite:///{settings.data_dir}/registry.db", settings.data_dir / "models")
        self.versions = [self.register(weight) for weight in (1.0, 2.0, 3.0)]
        self.start()
        first = rollout.promote(rollout.unscored(self.name), self.versions[0])
        self.registry.set_routing(rollout.add_candidate(first, self.versions[1], cause="e2"))
        self.start()

    def register(self, weight: float) -> Version:
        path = Path(self.settings.data_dir / f"{self.name}.onnx")
        path.write_bytes(linear([weight, -1.0]).SerializeToString())
        return self.registry.register(self.name, path, self.pipeline.spec.hash, {"retrain": f"of-{weight:g}"})

    def start(self) -> None:
        """As after a crash: nothing is remembered, and the blocks are read from their beginning."""
        self.routing = Routing(self.pipeline, self.settings, self.broker, self.registry)
        self.metrics = Metrics()
        self.rollouts = Rollouts(self.pipeline, self.routing, self.metrics)

    def fold(self, blocks: list[Block]) -> list[str | None]:
        """Takes the blocks; the causes of the deployments that come of them."""
        for block in blocks:
            self.rollouts.take(block)
        causes = []
        if self.routing.settle():
            self.rollouts.anew()
        while self.rollouts.decide():
            causes.append(self.routing.current.cause)
        return causes

    @property
    def places(self) -> tuple[str | None, str | None, str | None]:
        """Champion, candidate, previous, as the registry has them."""
        current = self.registry.routing(self.name)
        assert current is not None
        return current.champion.version if current.champion else None, current.candidate, current.previous

    def published(self) -> Deployment:
        with Reader(self.broker, self.pipeline.topics.deployments) as reader:
            found = reader.until(lambda r: len(r.found) > 0)
        return rollout.from_json(max(found, key=lambda o: o.offset).value or b"")

    def alerts(self) -> list[dict[str, Any]]:
        with Reader(self.broker, self.pipeline.topics.alerts) as reader:
            return [json.loads(o.value or b"") for o in reader.until(lambda r: len(r.found) > 0)]


@pytest.fixture
def case(place: tuple[Settings, str]) -> Case:
    return Case(*place)


def block(number: int, served: str, shadows: dict[str, float], n: int = 100, **fields: Any) -> Block:
    """A day that `served` scored. shadows: by version, the mean of loss(shadow) − loss(served)."""
    found: dict[str, Any] = {
        "predictions": n,
        "served": {served: n},
        "score": Column(n, least=0.1, most=0.9),
        "versions": {v: VersionLoss(n, n, 0.5, 0.2, 0.2, 0.5, 0.5) for v in (served, *shadows)},
        "paired": tuple(Paired(s, served, n, n * d, n * (d * d + 1e-4)) for s, d in shadows.items()),
    }
    start = START + number * DAY_MS
    return Block(f"b-{number}", "b", number, start, start + DAY_MS, **found | fields)


def test_a_candidate_that_is_as_good_becomes_champion_and_the_former_one_leaves_after_the_guard(case: Case) -> None:
    assert case.fold([block(1, "1", {"2": -0.01})]) == []  # 100 of 200 rows
    assert case.places == ("1", "2", None)
    assert case.rollouts.progress == {"candidate": 100}
    assert case.fold([block(2, "1", {"2": -0.01})]) == ["promoted"]
    assert case.places == ("2", None, "1")
    assert case.fold([block(n, "2", {"1": 0.01}) for n in (3, 4, 5)]) == []
    assert case.rollouts.open
    assert case.fold([block(6, "2", {"1": 0.01})]) == ["retired"]  # 400 rows
    assert case.places == ("2", None, None)
    assert not case.rollouts.open
    assert case.published() == case.registry.routing(case.name)


def test_each_step_says_why_on_the_alerts_topic(case: Case) -> None:
    case.fold([block(n, "1", {"2": -0.01}) for n in (1, 2)])
    (alert,) = case.alerts()
    assert (alert["kind"], alert["version"], alert["retrain"]) == ("promoted", "2", "of-2")
    assert alert["time"] == START + 3 * DAY_MS
    assert "200 rows" in alert["reasons"][0]
    assert alert["evidence"]["block"] == 2
    current = case.registry.routing(case.name)
    assert current is not None
    assert (alert["deployment"], current.evidence) == (current.id, alert["evidence"])
    assert case.metrics.value("weir_rollouts_total", decision="promoted") == 1


def test_a_candidate_that_is_worse_is_rejected_and_leaves(case: Case) -> None:
    assert case.fold([block(n, "1", {"2": 0.1}) for n in (1, 2)]) == ["rejected"]
    assert case.places == ("1", None, None)
    current = case.registry.routing(case.name)
    assert current is not None
    assert current.shadows == ()


def test_a_champion_that_turns_out_worse_is_rolled_back(case: Case) -> None:
    days = [block(1, "1", {"2": -0.01}, 200), block(2, "2", {"1": -0.5}, 100), block(3, "2", {"1": -0.5}, 100)]
    assert case.fold(days) == ["promoted", "rolled_back"]
    assert case.places == ("1", None, None)
    assert [a["kind"] for a in case.alerts()] == ["promoted", "rolled_back"]


def test_a_champion_without_scores_is_rolled_back_before_any_label_comes(case: Case) -> None:
    case.fold([block(1, "1", {"2": -0.01}, 200)])
    broken = block(2, "2", {}, 200, predictions=200, unscored=150, paired=(), versions={})
    assert case.fold([broken]) == ["rolled_back"]
    assert "75.0%" in case.alerts()[-1]["reasons"][0]


def test_a_pipeline_without_a_champion_is_left_alone(case: Case) -> None:
    case.registry.set_routing(rollout.unscored(case.name))
    case.start()
    assert case.fold([block(n, "1", {"2": -0.01}, 500, unscored=500) for n in range(1, 4)]) == []
    assert not case.rollouts.open


def test_a_block_that_comes_twice_counts_once(case: Case) -> None:
    once = block(1, "1", {"2": -0.01})
    assert case.fold([once, once, once]) == []
    assert case.rollouts.progress == {"candidate": 100}
    assert case.rollouts.last_block == 1


@pytest.mark.parametrize(("gain", "turns"), [(-0.05, 0.0), (0.0, 0.5), (0.004, 0.0), (0.05, 0.5)])
def test_a_trainer_that_dies_after_every_block_makes_the_same_deployments(
    gain: float, turns: float, place: tuple[Settings, str]
) -> None:
    """One goes on; one begins anew after each block, reading all blocks again; one reads them all at once."""
    living, dying, late = Case(*place), Case(*place), Case(*place)
    draw = random.Random(7)
    gains = {"1": 0.0, "2": gain}  # version 2 turns bad after a while, by `turns`
    days: list[Block] = []
    lived = []
    for number in range(1, 16):
        current = living.registry.routing(living.name)
        assert current is not None
        assert current.champion is not None
        served = current.champion.version
        gains["2"] += turns if number == 7 else 0.0
        worse = {s.version: gains[s.version] - gains[served] + draw.gauss(0, 0.002) for s in current.shadows}
        days.append(block(number, served, worse, draw.randrange(30, 120)))
        lived += living.fold([days[-1]])
    died = []
    for known in range(1, len(days) + 1):
        died += dying.fold(days[:known])
        dying.start()
    assert late.fold(days) == lived == died
    assert living.places == dying.places == late.places
    evidence = [[d.evidence for d in case.registry.history(case.name)] for case in (living, dying, late)]
    assert evidence[0] == evidence[1] == evidence[2]
    assert lived, "nothing was decided"


@pytest.mark.parametrize("step", ["tell", "set_routing", "publish"])
@pytest.mark.parametrize("after", [False, True])
def test_a_step_that_is_cut_off_is_made_once_after_the_start(
    step: str, after: bool, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = {"tell": Routing, "set_routing": Registry, "publish": release}[step]
    real = getattr(owner, step)
    days = [block(n, "1", {"2": -0.01}) for n in (1, 2)]
    case.fold([])  # settled: what fails is the step itself

    def dying(*args: Any, **named: Any) -> Any:
        if after:
            real(*args, **named)
        raise KeyboardInterrupt  # the process is gone

    monkeypatch.setattr(owner, step, dying)
    with pytest.raises(KeyboardInterrupt):
        case.fold(days)
    monkeypatch.undo()
    case.start()
    case.fold(days)
    assert case.places == ("2", None, "1")
    assert [d.cause for d in case.registry.history(case.name)] == ["promoted", "e2"]
    assert case.published() == case.registry.routing(case.name)
    told = case.alerts()
    assert {(a["kind"], a["id"]) for a in told} == {("promoted", case.published().id)}


def test_a_registry_that_is_away_delays_a_decision_and_does_not_lose_it(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streams import rollouts, routing

    def away(*_: Any) -> None:
        raise RegistryError("the registry does not answer")

    for module in (rollouts, routing):
        monkeypatch.setattr(module, "patiently", lambda ask: ask())
    case.fold([])
    monkeypatch.setattr(case.registry, "set_routing", away)
    for _ in range(2):
        with pytest.raises(RegistryError):
            case.fold([block(n, "1", {"2": -0.01}) for n in (1, 2)])
    monkeypatch.undo()
    assert case.fold([]) == ["promoted"]
    assert case.places == ("2", None, "1")


def test_a_deployment_by_hand_is_taken_as_it_is(case: Case) -> None:
    case.fold([block(1, "1", {"2": -0.01})])
    current = case.registry.routing(case.name)
    assert current is not None
    by_hand = rollout.promote(current, case.versions[2])
    case.registry.set_routing(by_hand)
    with pytest.raises(WeirError, match="by hand"):
        case.fold([block(2, "1", {"2": -0.01})])
    assert case.fold([]) == []
    assert case.places == ("3", "2", None)
    case.routing.seen(by_hand)  # its record comes late: nothing new
    assert not case.routing.stale
    case.routing.seen(rollout.promote(by_hand, case.versions[0]))
    assert case.routing.stale


def test_shadows_of_other_features_leave_with_the_next_step() -> None:
    fits, other = (Version("m", name, "/m", "0" * 64, spec) for name, spec in (("1", "a" * 16), ("2", "b" * 16)))
    deployment = rollout.add_candidate(
        rollout.promote(rollout.unscored("m"), fits), other, cause="c", evidence={"n": 1}
    )
    found = fitting(deployment, "a" * 16)
    assert (found.shadows, found.candidate, found.cause, found.evidence) == ((), None, "c", {"n": 1})
    assert fitting(found, "a" * 16) is found
