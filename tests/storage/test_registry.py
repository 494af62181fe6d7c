import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from arl.files import tree_hash
from arl.storage.registry import Registry, version_of


def model(folder: Path, value: float) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.full((3, 5), value, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"value": value}))
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return model(tmp_path / "models/encoder", 0.0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def add(registry: Registry, encoder: Path, value: float) -> str:
    folder = encoder.parent / f"breast-{value}"
    tasks = {"breast": folder if folder.exists() else model(folder, value)}
    version = registry.add_version(encoder, tasks, documents={"card.md": "# card\n"}, provenance={"git": None})
    assert version == version_of(encoder, tasks)
    return version


def test_a_version_is_its_content(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    assert len(version) == 12
    assert int(version, 16) >= 0
    folder = registry.version_folder(version)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "encoder/model.safetensors",
        "encoder/config.json",
        "tasks/breast/model.safetensors",
        "tasks/breast/config.json",
        "card.md",
        "manifest.json",
    }
    assert registry.tasks(version) == ["breast"]
    assert (registry.task_folder(version, "breast") / "config.json").is_file()
    registry.verify(version)
    assert add(registry, encoder, 2.0) != version
    assert len(registry.versions()) == 2


def test_the_same_content_twice_changes_nothing(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    before = tree_hash(registry.folder)
    assert add(registry, encoder, 1.0) == version
    registry.promote(version, expected=None)  # already champion: nothing to compare
    assert tree_hash(registry.folder) == before


def test_an_empty_registry_has_no_champion(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.versions() == []
    assert not registry.folder.exists()


def test_promotions_follow_each_other_and_roll_back(registry: Registry, encoder: Path) -> None:
    first, second, third = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    registry.promote(third, expected=second)
    assert registry.champion() == third
    assert registry.rollback() == second
    assert registry.champion() == second
    registry.promote(third, expected=second)
    assert [registry.rollback(), registry.rollback()] == [second, first]
    with pytest.raises(ValueError, match="no earlier champion"):
        registry.rollback()
    assert registry.champion() == first


def test_a_promotion_against_an_older_champion_is_refused(registry: Registry, encoder: Path) -> None:
    first, second, third = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    message = f"{third} was judged against champion {first}, but {second} is champion .* run the gate again"
    with pytest.raises(ValueError, match=message):
        registry.promote(third, expected=first)
    with pytest.raises(ValueError, match=f"against champion none, but {second}"):
        registry.promote(third, expected=None)
    assert registry.champion() == second


PROMOTE = """
import sys
from pathlib import Path
from arl.storage.registry import Registry
print("ready", flush=True)
sys.stdin.readline()
try:
    Registry(Path(sys.argv[1])).promote(sys.argv[2], expected=None)
    print("won", flush=True)
except ValueError as error:
    print(error, flush=True)
"""


def promoter(registry: Registry, version: str) -> subprocess.Popen[str]:
    """A process that promotes the version when it is sent a line, and says how that went."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROMOTE, str(registry.folder), version],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_promotions_at_once_one_wins_and_one_is_told(registry: Registry, encoder: Path) -> None:
    versions = [add(registry, encoder, value) for value in (1.0, 2.0)]
    processes = {version: promoter(registry, version) for version in versions}
    with registry._lock():  # both come while a third is changing the registry
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    found = {version: process.communicate(timeout=60)[0].strip() for version, process in processes.items()}
    winner = registry.champion()
    assert winner is not None
    (loser,) = set(versions) - {winner}
    assert found[winner] == "won"
    assert f"judged against champion none, but {winner} is champion" in found[loser]


def test_one_waits_for_the_other(registry: Registry, encoder: Path) -> None:
    """While the lock is held nothing is promoted: the compare and the swap are one."""
    version = add(registry, encoder, 1.0)
    process = promoter(registry, version)
    assert process.stdin is not None
    with registry._lock():
        process.stdin.write("\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        assert registry.champion() is None
    assert process.communicate(timeout=60)[0] == "won\n"
    assert registry.champion() == version


def test_a_killed_process_holds_no_lock(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(registry.folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    registry.promote(version, expected=None)
    assert registry.champion() == version


HOLD = """
import sys, time
from pathlib import Path
from arl.storage.registry import Registry
with Registry(Path(sys.argv[1]))._lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("file", "state"),
    [("tasks/breast/model.safetensors", "changed"), ("card.md", "changed"), ("extra.bin", "not listed")],
)
def test_a_tampered_version_is_detected(registry: Registry, encoder: Path, file: str, state: str) -> None:
    version = add(registry, encoder, 1.0)
    victim = registry.version_folder(version) / file
    content = bytearray(victim.read_bytes() if victim.exists() else b"x")
    content[-1] ^= 1
    victim.write_bytes(content)
    for use in (
        lambda: registry.verify(version),
        lambda: registry.promote(version, expected=None),
        lambda: add(registry, encoder, 1.0),
    ):
        with pytest.raises(ValueError, match=f"{file} is {state}: version {version} is not what was released"):
            use()
    assert registry.champion() is None


def test_a_missing_file_is_detected(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    (registry.version_folder(version) / "encoder/config.json").unlink()
    with pytest.raises(ValueError, match=r"encoder/config\.json is missing"):
        registry.verify(version)


def test_a_manifest_changed_with_its_file_is_detected(registry: Registry, encoder: Path) -> None:
    version, other = add(registry, encoder, 1.0), add(registry, encoder, 2.0)
    for name in ("tasks/breast/model.safetensors", "manifest.json", "tasks/breast/config.json"):
        (registry.version_folder(version) / name).write_bytes((registry.version_folder(other) / name).read_bytes())
    with pytest.raises(ValueError, match="changed with its manifest"):
        registry.verify(version)


def test_rolling_back_to_a_tampered_version_is_refused(registry: Registry, encoder: Path) -> None:
    first, second = add(registry, encoder, 1.0), add(registry, encoder, 2.0)
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    (registry.version_folder(first) / "card.md").write_text("another")
    with pytest.raises(ValueError, match=r"card\.md is changed"):
        registry.rollback()
    assert registry.champion() == second


def test_a_champion_that_is_gone_is_told(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    (registry.version_folder(version) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=f"has no version '{version}'"):
        registry.champion()


def test_pickles_and_broken_weights_are_refused(registry: Registry, encoder: Path, tmp_path: Path) -> None:
    folder = model(tmp_path / "models/pickled", 1.0)
    whole = (folder / "model.safetensors").read_bytes()
    for content in (pickle.dumps({"weight": [1.0]}), whole[:-4], b""):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated or not safetensors"):
            registry.add_version(encoder, {"breast": folder}, documents={}, provenance={})
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        registry.add_version(encoder, {"breast": folder}, documents={}, provenance={})
    assert not registry.folder.exists()


def test_other_bad_input(registry: Registry, encoder: Path) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        registry.add_version(encoder, {}, documents={}, provenance={})
    with pytest.raises(ValueError, match=r"task '\.\./x' cannot name a folder"):
        registry.add_version(encoder, {"../x": encoder}, documents={}, provenance={})
    with pytest.raises(ValueError, match="has no version 'abc'"):
        registry.promote("abc", expected=None)


def test_a_failed_release_leaves_nothing(registry: Registry, encoder: Path) -> None:
    task = model(encoder.parent / "breast", 1.0)
    with pytest.raises(TypeError):  # a provenance that JSON cannot hold fails after the copy
        registry.add_version(encoder, {"breast": task}, documents={}, provenance={"git": object()})
    assert registry.versions() == []
    assert list((registry.folder / "versions").iterdir()) == []
