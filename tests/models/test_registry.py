from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from models import rollout
from models.errors import RegistryError
from models.files import fetch, sha256_of
from models.made_for import misfit
from models.registry import KEPT_DEPLOYMENTS, Registry
from models.rollout import Version
from tests.models.graphs import constant_score

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
SPEC = "0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    """One SQLite file for all tests here (it takes seconds to make); each test has a model of its own."""
    return Registry(f"sqlite:///{folder}/data/registry.db", folder / "artifacts")


@pytest.fixture
def register(registry: Registry, tmp_path: Path):
    def make(model: str, score: float, lineage=None, **options) -> Version:
        path = tmp_path / "trained.onnx"
        path.write_bytes(constant_score(score))
        version = registry.register(model, path, SPEC, lineage, **options)
        path.unlink()
        return version

    return make


def test_a_registered_version_can_be_fetched_and_tells_its_lineage(registry, register, tmp_path: Path) -> None:
    version = register("a", 0.5, {"seed": 7, "auc": 0.734, "archive": "2013-01..2013-02"}, output="y")
    assert (version.version, version.spec_hash, version.output) == ("1", SPEC, "y")
    assert version.sha256 == sha256_of(constant_score(0.5))
    assert fetch(version.uri, version.sha256, tmp_path / "cache") == constant_score(0.5)
    (known,) = registry.versions("a")
    assert known.version == version
    assert known.lineage == {"seed": "7", "auc": "0.734", "archive": "2013-01..2013-02"}
    assert known.created_ms > 0


def test_what_a_version_was_made_for_is_kept_beside_its_file(register) -> None:
    version = register("made", 0.5, features={"amount": "11111111", "night": "22222222"})
    said = misfit(version, "fedcba9876543210", {"amount": "11111111", "night": "33333333"})
    assert said == (
        f"made for other features (spec {SPEC}, the pipeline's is fedcba9876543210): declared otherwise now: night"
    )


def test_another_file_is_the_next_version_and_the_same_file_the_same(registry, register) -> None:
    first, second, again = register("b", 0.1), register("b", 0.2), register("b", 0.1)
    assert (first.version, second.version) == ("1", "2")
    assert again == first
    assert [r.version.version for r in registry.versions("b")] == ["2", "1"]
    assert registry.version("b", "2") == second


def test_a_model_that_is_not_known_has_no_versions_and_no_routing(registry) -> None:
    assert registry.versions("nobody") == []
    assert registry.routing("nobody") is None
    with pytest.raises(RegistryError, match="nobody has no version 3"):
        registry.version("nobody", "3")


def test_the_routing_and_the_aliases_follow_the_deployments(registry, register) -> None:
    one, two, three = register("c", 0.1), register("c", 0.2), register("c", 0.3)
    deployment = rollout.promote(rollout.unscored("c"), one)
    deployment = rollout.add_canary(rollout.add_shadow(deployment, two), three, 0.1)
    registry.set_routing(deployment)
    assert registry.routing("c") == deployment
    assert [r.aliases for r in registry.versions("c")] == [("canary",), ("shadow",), ("champion",)]

    promoted = rollout.promote(deployment, three)
    registry.set_routing(promoted)
    assert registry.routing("c") == promoted
    assert [r.aliases for r in registry.versions("c")] == [("champion",), ("shadow",), ()]


def test_rollback_goes_one_deployment_further_back_each_time(registry, register) -> None:
    versions = [register("d", score) for score in (0.1, 0.2, 0.3)]
    deployment = rollout.unscored("d")
    for version in versions:
        deployment = rollout.promote(deployment, version)
        registry.set_routing(deployment)
    back = registry.rollback("d")
    assert back.champion == versions[1]
    assert registry.routing("d") == back
    assert registry.rollback("d").champion == versions[0]
    with pytest.raises(RegistryError, match="d has no deployment before the current one"):
        registry.rollback("d")


def test_setting_the_current_deployment_again_changes_nothing(registry, register) -> None:
    first = rollout.promote(rollout.unscored("e"), register("e", 0.1))
    second = rollout.promote(first, register("e", 0.2))
    for deployment in (first, second, second):
        registry.set_routing(deployment)
    assert registry.rollback("e").champion == first.champion


def test_old_deployments_are_dropped(registry, register) -> None:
    versions = [register("f", 0.1), register("f", 0.2)]
    deployment = rollout.unscored("f")
    for i in range(KEPT_DEPLOYMENTS + 3):
        deployment = rollout.promote(deployment, versions[i % 2])
        registry.set_routing(deployment)
    with registry._mlflow() as client:
        tags = client.get_registered_model("f").tags
    assert len([tag for tag in tags if tag.startswith("weir.deployment.")]) == KEPT_DEPLOYMENTS


def test_another_process_sees_what_was_registered_and_prints_nothing(registry, register, folder: Path) -> None:
    register("g", 0.5)
    code = (
        "from pathlib import Path; from models.registry import Registry; "
        f"r = Registry('sqlite:///{folder}/data/registry.db', Path({str(folder / 'artifacts')!r})); "
        "print([v.version.version for v in r.versions('g')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['1']\n", "")


def test_a_new_registry_prints_nothing(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from models import rollout; from models.registry import Registry; "
        "r = Registry('sqlite:///new/registry.db', Path('new/artifacts')); "
        "r.set_routing(rollout.unscored('h')); print(r.routing('h').champion)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert [p.name for p in tmp_path.iterdir()] == ["new"], "nothing beside what was asked for"


def test_a_registry_that_has_no_file_yet_is_empty_and_does_without_mlflow(tmp_path: Path) -> None:
    """MLflow takes seconds to import."""
    code = (
        "import sys; from pathlib import Path; from models.errors import RegistryError;"
        "from models.registry import Registry; "
        f"r = Registry('sqlite:///{tmp_path}/r.db', Path('{tmp_path}'))\n"
        "try: r.rollback('m')\n"
        "except RegistryError as error: said = str(error)\n"
        "print(r.versions('m'), r.routing('m'), said, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[0] == "[] None m has no deployment before the current one to go back to False"
    assert not (tmp_path / "r.db").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a'b", "a:b", "ü"])
def test_a_name_that_would_break_a_path_or_a_query_is_refused(registry, name: str) -> None:
    with pytest.raises(RegistryError, match="use letters, digits"):
        registry.versions(name)


def test_a_file_that_is_not_there_is_an_error_on_one_line(registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="cannot be read: No such file"):
        registry.register("i", tmp_path / "no.onnx", SPEC)


def test_a_server_that_does_not_answer_is_an_error_on_one_line(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"registry http://127.0.0.1:9: ") as error:
        Registry("http://127.0.0.1:9", tmp_path).routing("j")
    assert "\n" not in str(error.value)


def test_a_database_that_cannot_be_opened_is_an_error_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    with pytest.raises(RegistryError) as error:
        Registry(f"sqlite:///{tmp_path}/registry.db", tmp_path).routing("k")
    assert "\n" not in str(error.value)


def test_a_version_is_found_by_what_it_was_made_from(registry, register) -> None:
    register("m", 0.1, {"retrain": "r1", "seed": 7})
    second = register("m", 0.2, {"retrain": "r2", "seed": 7})
    newest = register("m", 0.3, {"retrain": "r3", "seed": 8})
    assert registry.version_of("m", {"retrain": "r2"}) == second
    assert registry.version_of("m", {"retrain": "r3", "seed": 8}) == newest
    assert registry.version_of("m", {"seed": 7}) == second
    assert registry.version_of("m", {"retrain": "r3", "seed": 7}) is None
    assert registry.version_of("m", {"retrain": "r"}) is None
    assert registry.version_of("nobody", {"retrain": "r1"}) is None


def test_a_version_is_marked_with_what_became_of_it(registry, register) -> None:
    version = register("n", 0.1, {"retrain": "r1"})
    registry.mark(version, {"status": "candidate"})
    registry.mark(version, {"status": "rejected", "reasons": "worse: " + "x" * 10_000})
    (known,) = registry.versions("n")
    assert known.version == version
    assert (known.lineage["retrain"], known.lineage["status"]) == ("r1", "rejected")
    assert len(known.lineage["reasons"]) == 5000
    with pytest.raises(RegistryError, match="n has no version 9"):
        registry.mark(msgspec.structs.replace(version, version="9"), {"status": "rejected"})
    with pytest.raises(RegistryError, match="another file"):
        registry.mark(msgspec.structs.replace(version, sha256="0" * 64), {"status": "rejected"})
    with pytest.raises(RegistryError, match="sha256 of a version cannot be marked"):
        registry.mark(version, {"sha256": "0" * 64})


def test_the_roles_survive_the_registry_and_a_rollback(registry, register) -> None:
    versions = [register("o", score) for score in (0.1, 0.2, 0.3)]
    first = rollout.install(rollout.unscored("o"), versions[0], cause="r1", evidence={"rows": 5})
    second = rollout.install(first, versions[1], keep_first=True)
    third = rollout.add_candidate(second, versions[2], cause="r3")
    for deployment in (first, second, third):
        registry.set_routing(deployment)
        assert registry.routing("o") == deployment
    assert registry.history("o") == [third, second, first]
    back = registry.rollback("o")
    assert (back.champion, back.previous, back.first, back.candidate) == (versions[1], "1", "1", None)
    assert registry.rollback("o").shadows == ()


def test_several_processes_may_open_a_new_registry_at_once(tmp_path: Path) -> None:
    """One makes the tables while the others wait: a reader never meets half a schema."""
    script = (
        "import sys; from pathlib import Path; from models.registry import Registry\n"
        "found = Registry(f'sqlite:///{sys.argv[1]}/registry.db', Path(sys.argv[1]))\n"
        "with found._mlflow() as client: print(len(client.search_registered_models()))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        said, errors = process.communicate(timeout=120)
        assert (process.returncode, said.strip()) == (0, "0"), errors[-2000:]


def test_a_process_that_dies_while_it_makes_a_registry_leaves_none(tmp_path: Path) -> None:
    """Killed at the first sign of a file, and a while later: who comes next makes it anew, and clears up."""
    uri = f"sqlite:///{tmp_path}/data/registry.db"
    script = "\n".join(
        (
            "from pathlib import Path",
            "from models import registry, rollout",
            f"registry.Registry({uri!r}, Path('.')).set_routing(rollout.unscored('a'))",
        )
    )
    for pause_s in (0.0, 0.4):
        making = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("data/.registry.db-*/built")):
            assert making.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(pause_s)
        making.kill()
        making.wait()
        (tmp_path / "data" / "registry.db").unlink(missing_ok=True)  # it was quicker than the kill
    registry = Registry(uri, tmp_path)
    registry.set_routing(rollout.unscored("a"))
    assert registry.routing("a") == rollout.unscored("a")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["registry.db", "registry.db.lock"]
