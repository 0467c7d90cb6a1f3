"""What one retrain event does: data, training, gate, version, deployment; and every way in which that goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import rollout
from models.dataset import Dataset, split_newest
from models.errors import RegistryError
from models.registry import Registry
from models.rollout import Version
from monitors.loop import Range, RetrainEvent
from monitors.metrics import Metrics
from streams.embedded import start_embedded
from streams.errors import UsageError, WeirError
from streams.judging import work
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from streams.retraining import TRIES, NotNow, Retraining
from streams.routing import Routing
from streams.settings import Settings, load_settings
from streams.training import as_plain, read_dataset, revision
from streams.training_child import Child, Job, Result
from streams.training_folder import Done, TrainingFolder
from tests.integration.outputs import Reader
from tests.models.graphs import constant_score, linear
from tests.streams.retrained import START, archive, declare, event_of, rows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).parents[2]


def job_of(folder: Path, function: str = "train", n: int = 1000, **changes: Any) -> Job:
    """A job on an archive of `n` rows."""
    path = declare(folder, "shop", function)
    table = rows(n)
    event = event_of(load_pipeline(str(path)), table)
    place = str(archive(folder / "archive", table))
    found = Job(str(path), event, place, str(folder / "training"), str(folder / "models"), 5, wait_s=0.0)
    return msgspec.structs.replace(found, **changes)


def rows_as_read(folder: Path) -> Dataset:
    return read_dataset(load_pipeline(str(folder / "shop.py")), folder / "archive")


def deaf(_: str) -> None:
    """Hears no phase."""


def saved(folder: Path, model: bytes, spec_hash: str, name: str = "1") -> Version:
    """A champion of the job's pipeline."""
    from models.files import sha256_of

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"champion-{name}.onnx"
    path.write_bytes(model)
    return Version("shop", name, str(path), sha256_of(model), spec_hash)


# The training itself


def test_a_training_gives_a_model_with_its_lineage_and_the_gates_evidence(tmp_path: Path) -> None:
    heard: list[str] = []
    found = work(job_of(tmp_path), heard.append)
    assert (found.reasons, found.later, heard) == ((), "", ["judging"])
    assert found.path is not None
    assert Path(found.path).is_file()
    held_out = len(split_newest(rows_as_read(tmp_path))[1])
    wanted = {"rows": 1000, "held_out": held_out, "seed": 5, "from": "2023-11-14T00:00:00+00:00", "log_loss": 0.5}
    assert wanted.items() <= found.lineage.items()
    assert {"data", "code", "python", "numpy", "onnxruntime", "platform", "to"} <= found.lineage.keys()
    assert found.evidence["against"] == "base rate"
    assert found.evidence["rows"] == held_out


def test_the_same_job_gives_the_same_result(tmp_path: Path) -> None:
    first, second = work(job_of(tmp_path / "a"), deaf), work(job_of(tmp_path / "b"), deaf)
    assert Path(first.path or "").read_bytes() == Path(second.path or "").read_bytes()
    assert (first.lineage, first.evidence) == (second.lineage, second.evidence)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("train_and_raise", "train_and_raise failed: KeyError: 'no such column'"),
        ("train_and_leave", "train_and_leave failed: SystemExit: 3"),
        ("train_nonsense", "must return models.trainer.Trained, it returned dict"),
        ("train_nothing", "but there is no such file"),
        ("train_odd_metrics", "returned what cannot be read"),
        ("train_diverging", "the loss is not finite in epoch 3"),
        ("train_garbage", "cannot be served: not an ONNX file"),
        ("train_on_other_features", "cannot be served: input x takes 3 features, the pipeline has 2"),
        ("no_such_function", "no_such_function"),
    ],
)
def test_what_gives_no_model_is_rejected_in_words(function: str, reason: str, tmp_path: Path) -> None:
    found = work(job_of(tmp_path, function), deaf)
    assert found.path is None
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]
    assert "\n" not in found.reasons[0]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("train_constant", "the output is constant"),
        ("train_nan", "100.0% of the rows have no finite score"),
        ("train_wrongly", "worse: log loss"),
    ],
)
def test_a_bad_model_is_rejected_by_the_gate_and_kept_as_evidence(function: str, reason: str, tmp_path: Path) -> None:
    found = work(job_of(tmp_path, function), deaf)
    assert found.path is not None
    assert any(reason in said for said in found.reasons), found.reasons


def test_a_full_disk_is_no_fault_of_the_event(tmp_path: Path) -> None:
    found = work(job_of(tmp_path, "train_on_a_full_disk"), deaf)
    assert (found.reasons, found.path) == ((), None)
    assert "No space left on device" in found.later


def test_a_model_must_be_as_good_as_the_champion(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    spec_hash = load_pipeline(job.pipeline).spec.hash
    fair, poor = linear([1.0, -0.5]).SerializeToString(), linear([-2.0, 1.0]).SerializeToString()
    against_fair = work(msgspec.structs.replace(job, champion=saved(tmp_path, fair, spec_hash)), deaf)
    assert (against_fair.reasons, against_fair.evidence["against"]) == ((), "champion")
    poorly = msgspec.structs.replace(
        job_of(tmp_path / "poor", "train_wrongly"), champion=saved(tmp_path, fair, spec_hash, "2")
    )
    assert any("worse" in reason for reason in work(poorly, deaf).reasons)
    even_so = msgspec.structs.replace(poorly, champion=saved(tmp_path, poor, spec_hash, "3"))
    assert work(even_so, deaf).evidence["difference"] == pytest.approx(0, abs=0.1)


def test_a_champion_whose_file_is_away_is_waited_for_and_one_that_is_broken_counts_as_none(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    spec_hash = load_pipeline(job.pipeline).spec.hash
    champion = saved(tmp_path, linear([2.0, -1.0]).SerializeToString(), spec_hash)
    Path(champion.uri).unlink()
    found = work(msgspec.structs.replace(job, champion=champion), deaf)
    assert (found.reasons, found.path) == ((), None)
    assert "cannot be read" in found.later
    broken = saved(tmp_path, b"broken", spec_hash, "2")
    assert work(msgspec.structs.replace(job, champion=broken), deaf).evidence["against"] == "base rate"


def test_only_rows_whose_label_was_known_when_the_event_came_are_used(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    to = START + 500 * 600_000 + 3_600_000
    earlier = msgspec.structs.replace(job.event, range=Range(start=START, to=to), labels=500)
    assert work(msgspec.structs.replace(job, event=earlier), deaf).lineage["rows"] == 500


def test_an_archive_file_that_is_cut_short_is_left_out_and_named(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    archive(tmp_path / "archive", rows(400, 1, first=5000), "cut")
    whole = (tmp_path / "archive" / "cut.parquet").read_bytes()
    (tmp_path / "archive" / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    found = work(job, deaf)
    assert (found.reasons, found.lineage["rows"]) == ((), 1000)
    assert [reason.split(":")[0] for reason in found.skipped] == ["cut.parquet"]


def test_no_labels_in_range_is_a_reason(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    before = msgspec.structs.replace(job.event, range=Range(start=START - 1000, to=START), labels=0)
    (reason,) = work(msgspec.structs.replace(job, event=before), deaf).reasons
    assert "no labelled events" in reason
    (reason,) = work(msgspec.structs.replace(job, archive=str(tmp_path / "nowhere")), deaf).reasons
    assert "no archive" in reason


def test_an_archive_that_is_a_moment_late_is_waited_for(tmp_path: Path) -> None:
    job = job_of(tmp_path, wait_s=60.0)
    more = msgspec.structs.replace(job.event, labels=1500)
    late = threading.Timer(0.8, lambda: archive(tmp_path / "archive", rows(500, 1, first=9000), "late"))
    late.start()
    found = work(msgspec.structs.replace(job, event=more), deaf)
    late.join()
    assert found.lineage["rows"] == 1500


def test_rows_that_never_come_are_done_without(tmp_path: Path) -> None:
    job = job_of(tmp_path, wait_s=0.6)
    more = msgspec.structs.replace(job.event, labels=1500)
    assert work(msgspec.structs.replace(job, event=more), deaf).lineage["rows"] == 1000


def test_a_model_that_a_former_try_has_made_is_taken(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    first = work(job, deaf)
    declare(tmp_path, "shop", "train_and_raise")  # whoever trains again now fails
    assert work(job, deaf) == first
    Path(first.path or "").write_bytes(b"half a fi")
    assert "no such column" in work(job, deaf).reasons[0]


def test_evidence_is_plain_json_whatever_is_in_it() -> None:
    import numpy as np

    odd = {"a": np.float32(0.5), "b": [np.int64(3), float("nan")], 3: (None, True, "x"), "c": {"d": float("inf")}}
    assert json.loads(json.dumps(as_plain(odd), allow_nan=False)) == {
        "a": 0.5, "b": [3.0, "nan"], "3": [None, True, "x"], "c": {"d": "inf"},
    }  # fmt: skip


def test_the_code_is_named_by_its_commit_or_its_version() -> None:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = revision().removesuffix("-dirty")
    assert found
    if asked.returncode == 0:
        assert asked.stdout.startswith(found.rpartition("-g")[2])


# The process around it


def ended(child: Child, within_s: float = 100.0) -> str:
    """How a child ended."""
    deadline = time.monotonic() + within_s
    while (found := child.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_training_process_says_its_result_whatever_a_function_prints(tmp_path: Path) -> None:
    child = Child(job_of(tmp_path, "train_printing"))
    assert ended(child) == ""
    assert child.phase == "judging"
    assert child.result is not None
    assert (child.result.reasons, child.result.lineage["rows"]) == ((), 1000)


def test_a_training_process_that_dies_says_how(tmp_path: Path) -> None:
    child = Child(job_of(tmp_path, "train_and_die"))
    assert ended(child) == "the training process ended with code 9"
    slow = Child(job_of(tmp_path, "train"))
    os.kill(slow.pid, signal.SIGKILL)
    assert ended(slow) == "the training process was killed (SIGKILL)"
    assert slow.result is None
    late = Child(job_of(tmp_path, "train"), limit_s=0.0)
    assert "SIGKILL" in ended(late)


def test_a_training_process_ends_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = tmp_path / "began"
    monkeypatch.setenv("TRAINING_BEGAN", str(began))
    monkeypatch.setenv("TRAINING_GOES_ON", str(tmp_path / "never"))
    job = tmp_path / "job.json"
    job.write_bytes(msgspec.json.encode(job_of(tmp_path, "train_slowly")))
    code = (
        "import sys, time, msgspec\nfrom pathlib import Path\nfrom streams.training_child import Child, Job\n"
        "child = Child(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job))\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(job)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(began.exists)
        parent.kill()
        parent.wait()
        wait_until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(what: Callable[[], bool], within_s: float = 100.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What is kept on disk


def test_attempts_and_the_ending_outlive_the_process(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path, "e1")
    assert (folder.attempts, folder.done) == (0, None)
    folder.begin()
    (folder.path / "model.onnx").write_bytes(b"x")
    again = TrainingFolder(tmp_path, "e1")
    again.begin()
    again.unbegin()
    assert again.attempts == 1
    again.end(Done("e1", "rejected", None, ("no",)))
    assert TrainingFolder(tmp_path, "e1").done == Done("e1", "rejected", None, ("no",))
    assert [left.name for left in folder.path.iterdir()] == ["state.json"]


@given(st.text(max_size=80))
def test_an_events_id_leads_to_a_folder_below_the_root(id: str) -> None:
    root = Path("/somewhere/training")
    assert TrainingFolder(root, id).path.parent == root
    assert TrainingFolder(root, id).path.resolve().parent == root


# From the event to the deployment


class InProcess:
    """A child that has done its job when it is made. `died`, `results`: what the next ones do instead."""

    died: list[str]
    results: list[Result]

    def __init__(self) -> None:
        self.died, self.results, self.jobs = [], [], list[Job]()

    def __call__(self, job: Job) -> Any:
        self.jobs.append(job)
        child = _Ended()
        if self.died:
            child.how = self.died.pop(0)
        else:
            child.result = self.results.pop(0) if self.results else work(job, deaf)
        return child


class _Ended:
    def __init__(self) -> None:
        self.phase, self.started_s, self.how = "judging", time.monotonic(), ""
        self.result: Result | None = None

    def poll(self) -> str:
        return self.how

    def stop(self) -> None:
        return


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str]]:
    """Settings with a registry on SQLite, which takes seconds to make, and an embedded broker's address."""
    folder = tmp_path_factory.mktemp("data")
    with start_embedded(folder) as pair:
        yield load_settings(data_dir=folder, broker="embedded", redis="embedded"), pair.broker


class Case:
    """A pipeline of its own on the module's servers, and what works off its events."""

    def __init__(self, settings: Settings, broker: str, function: str = "train") -> None:
        self.settings, self.broker, self.name = settings, broker, f"p{uuid.uuid4().hex[:8]}"
        self.path = declare(settings.data_dir / "declared", self.name, function)
        self.pipeline: Pipeline = load_pipeline(str(self.path))
        self.table = rows(1000)
        archive(settings.data_dir / "archive" / self.name, self.table)
        self.registry = Registry(f"sqlite:///{settings.data_dir}/registry.db", settings.data_dir / "models")
        self.child = InProcess()
        self.start()

    def start(self) -> None:
        """As after a crash: nothing is remembered."""
        self.routing = Routing(self.pipeline, self.settings, self.broker, self.registry)
        self.metrics = Metrics()
        self.retraining = Retraining(
            str(self.path), self.pipeline, self.settings, self.routing, self.metrics, child=self.child, wait_s=0.0
        )
        self.routing.settle()

    def event(self, id: str = "e1", **changes: Any) -> RetrainEvent:
        return event_of(self.pipeline, self.table, id, **changes)

    def registered(self, model: bytes, spec_hash: str) -> Version:
        path = self.settings.data_dir / f"{uuid.uuid4().hex}.onnx"
        path.write_bytes(model)
        return self.registry.register(self.name, path, spec_hash)

    def work_off(self, event: RetrainEvent, most: int = 20) -> Done:
        self.retraining.begin(event)
        return self.go_on(most)

    def go_on(self, most: int = 20) -> Done:
        for _ in range(most):
            if (done := self.retraining.poll()) is not None:
                assert self.retraining.phase == "idle"
                return done
        raise AssertionError("it does not come to an end")

    def patient(self, event: RetrainEvent) -> tuple[str, int]:
        """How an event ends, and how often it had to be tried again."""
        self.retraining.begin(event)
        tried = 0
        while True:
            try:
                if (done := self.retraining.poll()) is not None:
                    return done.ending, tried
            except NotNow:
                tried += 1

    def count(self, result: str) -> float:
        return self.metrics.value("weir_trainings_total", result=result)

    def alerts(self, n: int) -> list[dict[str, Any]]:
        with Reader(self.broker, self.pipeline.topics.alerts) as reader:
            return [json.loads(o.value or b"") for o in reader.until(lambda r: len(r.found) >= n)]

    def published(self) -> dict[str, Any]:
        """The newest deployment on the topic."""
        with Reader(self.broker, self.pipeline.topics.deployments) as reader:
            found = reader.until(lambda r: len(r.found) > 0)
        newest: dict[str, Any] = json.loads(max(found, key=lambda o: o.offset).value or b"")
        return newest


@pytest.fixture
def case(place: tuple[Settings, str]) -> Case:
    return Case(*place)


def test_the_first_version_becomes_champion_and_the_next_one_a_candidate(case: Case) -> None:
    assert case.work_off(case.event("e1")) == Done("e1", "champion", "1", (), case.event().time)
    assert case.work_off(case.event("e2")).ending == "candidate"
    current = case.registry.routing(case.name)
    assert current is not None
    assert current.champion is not None
    assert (current.champion.version, current.candidate, current.cause) == ("1", "2", "e2")
    assert case.published()["deployment"] == current.id
    assert [(a["kind"], a["version"]) for a in case.alerts(2)] == [("champion", "1"), ("candidate", "2")]
    assert case.count("registered") == 2


def test_a_new_candidate_takes_the_place_of_one_that_has_not_come_to_a_decision(case: Case) -> None:
    for id in ("e1", "e2", "e3"):
        case.work_off(case.event(id))
    assert case.routing.current.candidate == "3"
    assert [v.version for v in case.routing.current.shadows] == ["3"]
    assert case.alerts(3)[2]["instead_of"] == "2"


def test_the_seed_is_the_events_own(case: Case) -> None:
    for id in ("e1", "e2"):
        case.work_off(case.event(id))
    first, second = (job.seed for job in case.child.jobs)
    assert first != second
    again = Case(case.settings, case.broker)
    again.work_off(again.event("e1"))
    assert again.child.jobs[0].seed == first


def test_an_event_that_comes_twice_does_nothing_the_second_time(case: Case) -> None:
    first = case.work_off(case.event())
    before = case.registry.routing(case.name)
    assert case.work_off(case.event()) == first
    case.start()
    assert case.work_off(case.event()) == first
    assert len(case.child.jobs) == 1
    assert case.registry.routing(case.name) == before
    assert len(case.registry.versions(case.name)) == 1
    assert case.count("reused") == 1


def test_an_event_of_other_features_is_rejected_by_name(case: Case) -> None:
    done = case.work_off(case.event(spec_hash="0123456789abcdef"))
    assert done.ending == "rejected"
    assert "0123456789abcdef" in done.reasons[0]
    assert case.pipeline.spec.hash in done.reasons[0]
    assert case.child.jobs == []
    (alert,) = case.alerts(1)
    assert (alert["kind"], alert["reasons"], alert["time"]) == ("rejected", list(done.reasons), case.event().time)


def test_a_training_that_dies_is_taken_up_once(case: Case) -> None:
    case.child.died = ["killed"]
    assert case.work_off(case.event()).ending == "champion"
    assert len(case.child.jobs) == 2


def test_a_training_that_dies_twice_is_rejected(case: Case) -> None:
    case.child.died = ["killed", "killed", "killed"]
    assert case.work_off(case.event()) == Done("e1", "rejected", None, ("its training died twice",), case.event().time)
    assert len(case.child.jobs) == 2
    assert case.registry.versions(case.name) == []
    assert case.count("failed") == 1


def test_a_model_that_the_gate_rejects_is_kept_and_not_deployed(place: tuple[Settings, str]) -> None:
    case = Case(*place, function="train_constant")
    done = case.work_off(case.event())
    assert (done.ending, done.version) == ("rejected", "1")
    assert "constant" in done.reasons[0]
    assert case.registry.routing(case.name) is None
    (version,) = case.registry.versions(case.name)
    assert (version.lineage["verdict"], version.lineage["retrain"]) == ("rejected", "e1")
    assert json.loads(version.lineage["gate"])["reasons"] == list(done.reasons)


def test_a_full_disk_is_tried_again_and_given_up_at_last(case: Case) -> None:
    full = Result(later="OSError: No space left on device")
    case.child.results = [full] * 2
    assert case.patient(case.event("e1")) == ("champion", 2)
    assert TrainingFolder(case.settings.data_dir / "training" / case.name, "e1").attempts == 1
    case.child.results = [full] * TRIES
    assert case.patient(case.event("e2")) == ("rejected", TRIES - 1)
    assert case.alerts(2)[1]["reasons"] == [full.later]


@pytest.mark.parametrize("step", ["versions", "register", "history", "set_routing", "publish", "tell", "end"])
@pytest.mark.parametrize("remembered", [True, False])
def test_whatever_fails_once_is_made_once(
    step: str, remembered: bool, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure before or after each step, with the process going on, or with a new one that remembers nothing."""
    from streams import release, retraining, routing

    monkeypatch.setattr(routing, "patiently", lambda ask: ask())
    monkeypatch.setattr(retraining, "patiently", lambda ask: ask())
    owner = {"publish": release, "tell": Routing, "end": TrainingFolder}.get(step, case.registry)
    for after in (False, True):
        _fail_once(monkeypatch, owner, step, after=after)
        event = case.event(f"after-{after}")
        case.retraining.begin(event)
        failed = 0
        for _ in range(30):
            try:
                if (done := case.retraining.poll()) is not None:
                    break
            except (RegistryError, WeirError, OSError):
                failed += 1
                if not remembered:
                    case.start()
                    case.retraining.begin(event)
            case.routing.settle()
        else:
            raise AssertionError("it does not come to an end")
        assert failed == 1, step
        assert done.ending == ("candidate" if after else "champion")
        monkeypatch.undo()
        monkeypatch.setattr(routing, "patiently", lambda ask: ask())
        monkeypatch.setattr(retraining, "patiently", lambda ask: ask())
    lineages = [found.lineage["retrain"] for found in case.registry.versions(case.name)]
    assert sorted(lineages) == ["after-False", "after-True"]
    causes = [deployment.cause for deployment in case.registry.history(case.name)]
    assert causes == ["after-True", "after-False"]
    assert case.published()["cause"] == "after-True"


def _fail_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool) -> None:
    real, failed = getattr(owner, name), []

    def failing(*args: Any, **named: Any) -> Any:
        if failed:
            return real(*args, **named)
        failed.append(1)
        if after:
            real(*args, **named)
        raise RegistryError(f"{name} fails")

    monkeypatch.setattr(owner, name, failing)


def test_a_champion_that_comes_meanwhile_is_judged_against(case: Case) -> None:
    case.work_off(case.event("e1"))
    case.work_off(case.event("e2"))
    case.retraining.begin(case.event("e3"))
    assert case.retraining.poll() is None  # trained and judged against version 1
    following = rollout.promote_candidate(case.routing.current)
    case.routing.change(following, "promoted", 0)
    assert case.go_on().ending == "candidate"
    assert [job.champion.version if job.champion else None for job in case.child.jobs] == [None, "1", "1", "2"]
    assert case.registry.version(case.name, "3") is not None
    assert case.routing.current.evidence is not None
    assert case.routing.current.evidence["champion"] == "2"


def test_versions_made_for_other_features_leave_with_the_first_that_fits(case: Case) -> None:
    stale = [case.registered(constant_score(score, 3), "f" * 16) for score in (0.5, 0.4)]
    case.routing.change(
        rollout.add_shadow(rollout.promote(rollout.unscored(case.name), stale[0]), stale[1]), "champion", 0
    )
    assert case.work_off(case.event()).ending == "champion"
    current = case.registry.routing(case.name)
    assert current is not None
    assert current.champion is not None
    assert current.champion.spec_hash == case.pipeline.spec.hash
    assert current.shadows == ()
    assert current.cause == "e1"


def test_the_same_model_again_is_no_candidate(place: tuple[Settings, str]) -> None:
    case = Case(*place, function="train_unseeded")
    assert case.work_off(case.event("e1")).ending == "champion"
    done = case.work_off(case.event("e2"))
    assert (done.ending, done.reasons) == ("rejected", ("the training gave the model of version 1 again",))


def test_a_routing_that_another_hand_has_changed_is_looked_at_again(case: Case) -> None:
    case.work_off(case.event("e1"))
    other = case.registered(constant_score(0.5), case.pipeline.spec.hash)
    by_hand = rollout.add_shadow(case.routing.current, other)
    case.registry.set_routing(by_hand)
    case.retraining.begin(case.event("e2"))
    with pytest.raises(WeirError, match="by hand"):
        case.go_on()
    assert case.routing.settle()
    assert case.go_on().ending == "candidate"
    assert [v.version for v in case.routing.current.shadows] == [other.version, "3"]


def test_a_retrain_events_trace_goes_on_to_the_deployment(place: tuple[Settings, str]) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from streams.tracing import Tracer, parse_traceparent

    case, exporter = Case(*place), InMemorySpanExporter()
    case.routing.tracer = tracer = Tracer(case.name, exporter)
    header = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    case.retraining.begin(case.event("e1"), header)
    case.go_on()
    with Reader(case.broker, case.pipeline.topics.deployments) as reader:
        (record,) = reader.until(lambda r: len(r.found) == 1)
    assert tracer.shutdown(30)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"weir.train", "weir.deploy"}
    assert {span.context.trace_id for span in spans.values()} == {int("a" * 32, 16)}
    assert spans["weir.train"].parent.span_id == int("b" * 16, 16)
    assert spans["weir.deploy"].parent.span_id == spans["weir.train"].context.span_id
    found = parse_traceparent(record.headers["traceparent"])
    assert found is not None
    assert found.span_id == spans["weir.deploy"].context.span_id
    assert spans["weir.train"].attributes["weir.outcome"] == "champion"


# The process


def test_what_cannot_train_says_why(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from streams import trainer_process

    assert trainer_process.cannot_train(case.pipeline) == ""
    built_in = load_pipeline(str(declare(case.settings.data_dir / "declared", f"{case.name}b", None)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert trainer_process.cannot_train(case.pipeline) == ""  # its own function may need none
    assert "extra train" in trainer_process.cannot_train(built_in)
    with pytest.raises(UsageError, match="extra train"):
        trainer_process.run_trainer("b.py", built_in, case.settings)
    monkeypatch.setattr(built_in, "retrain", None)
    assert "declares no retrain" in trainer_process.cannot_train(built_in)


def test_each_role_has_the_port_after_the_one_before(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    from streams import supervisor

    made: list[tuple[str, dict[str, str]]] = []

    class Ends:
        def __init__(self, name: str, _: str, environment: dict[str, str]) -> None:
            made.append((name, environment))

        def tend(self, _: float) -> int:
            return 0

        def ask_to_stop(self) -> None:
            return

        def wait(self, _: float) -> None:
            return

    monkeypatch.setattr(supervisor, "Role", Ends)
    settings = case.settings.model_copy(update={"http": "127.0.0.1:8400"})
    assert supervisor.run_all("p", settings, ("worker", "monitor", "trainer")) == 0
    assert made == [
        ("worker", {}), ("monitor", {"WEIR_HTTP": "127.0.0.1:8401"}), ("trainer", {"WEIR_HTTP": "127.0.0.1:8402"}),
    ]  # fmt: skip
