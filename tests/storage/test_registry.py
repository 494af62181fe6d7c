"""The registry in a folder, and the same in a bucket of a real S3 server."""

import json
import pickle
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from arl.storage import backends
from arl.storage.backends import locked
from arl.storage.metadata import Provenance
from arl.storage.registry import Registry, tasks_of, version_of
from arl.storage.s3 import Store, redacted
from arl.storage.signing import Keys, key_id


def model(folder: Path, value: float) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.full((3, 5), value, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"value": value}))
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return model(tmp_path / "models/encoder", 0.0)


@pytest.fixture
def folder_address(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


@pytest.fixture
def bucket_address(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    return f"s3://{s3_bucket}/models/ours"


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_address"))


@pytest.fixture
def registry(address: str) -> Registry:
    return Registry(address, None)


def add(registry: Registry, encoder: Path, value: float) -> str:
    folder = encoder.parent / f"breast-{value}"
    tasks = {"breast": folder if folder.exists() else model(folder, value)}
    version = registry.add_version(
        encoder, tasks, documents={"card.md": "# card\n"}, provenance=Provenance()
    )
    assert version == version_of(encoder, tasks)
    return version


def stored(address: str) -> dict[str, bytes]:
    """Everything that lies at an address."""
    if address.startswith("s3://"):
        store = Store(address)
        return {item.key: store.get(item.key) for item in store.objects()}
    files = [path for path in Path(address).rglob("*") if path.is_file()]
    return {path.relative_to(address).as_posix(): path.read_bytes() for path in files}


def tamper(address: str, version: str, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Change a file of a version where it lies; None removes it."""
    here = [key for key in stored(address) if key.startswith(f"versions/{version}/")]
    beside = next(key for key in here if key.endswith("/card.md")).removesuffix("card.md")
    key = next((key for key in here if key.endswith(f"/{name}")), beside + name)
    content = change(stored(address).get(key, b""))
    if address.startswith("s3://"):
        Store(address).remove(key) if content is None else Store(address).put(key, content)
    elif content is None:
        (Path(address) / key).unlink()
    else:
        (Path(address) / key).write_bytes(content)


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_version_is_its_content(registry: Registry, encoder: Path) -> None:
    version = add(registry, encoder, 1.0)
    assert len(version) == 12
    assert int(version, 16) >= 0
    folder = registry.fetch(version)
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } == {
        "encoder/model.safetensors",
        "encoder/config.json",
        "tasks/breast/model.safetensors",
        "tasks/breast/config.json",
        "card.md",
        "manifest.json",
    }
    assert tasks_of(folder) == {"breast": folder / "tasks/breast"}
    assert (folder / "encoder/model.safetensors").read_bytes() == (
        encoder / "model.safetensors"
    ).read_bytes()
    assert registry.manifest(version).version == version
    assert add(registry, encoder, 2.0) != version
    assert len(registry.versions()) == 2


def test_the_same_content_twice_changes_nothing(
    registry: Registry, encoder: Path, address: str
) -> None:
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    before = stored(address)
    assert add(registry, encoder, 1.0) == version
    registry.promote(version, expected=None)  # already champion: nothing to compare
    assert stored(address) == before


def test_an_empty_registry_has_no_champion(
    registry: Registry, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert registry.champion() is None
    assert registry.versions() == []
    assert stored(address) == {}
    assert list(tmp_path.glob("registry*")) == []


def test_promotions_follow_each_other_and_roll_back(
    registry: Registry, encoder: Path, address: str
) -> None:
    first, second, third = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    registry.promote(third, expected=second)
    assert Registry(address, None).champion() == third
    assert registry.rollback("eve", "worse on site B") == second
    assert Registry(address, None).champion() == second
    assert registry.rollback("eve", "worse on site B") == first
    with pytest.raises(ValueError, match="no earlier champion"):
        registry.rollback("eve", "worse on site B")
    assert registry.champion() == first


def test_a_promotion_against_an_older_champion_is_refused(
    registry: Registry, encoder: Path
) -> None:
    first, second, third = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    message = (
        f"{third} was judged against champion {first}, but {second} is champion "
        ".* run the gate again"
    )
    with pytest.raises(ValueError, match=message):
        registry.promote(third, expected=first)
    with pytest.raises(ValueError, match=f"against champion none, but {second}"):
        registry.promote(third, expected=None)
    assert registry.champion() == second


PROMOTE = """
import sys
from arl.storage.registry import Registry
registry = Registry(sys.argv[1], None)
registry.fetch(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.promote(sys.argv[2], expected=None)
    print("won", flush=True)
except ValueError as error:
    print(error, flush=True)
"""


def promoter(address: str, version: str) -> "subprocess.Popen[str]":
    """A process that promotes the version when it is sent a line, and says how that went."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROMOTE, address, version],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_promotions_at_once_one_wins_and_one_is_told(
    registry: Registry, encoder: Path, address: str
) -> None:
    versions = [add(registry, encoder, value) for value in (1.0, 2.0)]
    processes = {version: promoter(address, version) for version in versions}
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = {
        version: process.communicate(timeout=60)[0].strip()
        for version, process in processes.items()
    }
    winner = registry.champion()
    assert winner is not None
    (loser,) = set(versions) - {winner}
    assert found[winner] == "won"
    # told by the comparison, or by the swap
    assert (
        f"{winner} is champion" in found[loser]
        or f"to {winner}, so {loser} did not become" in found[loser]
    )
    assert found[loser].endswith("run the gate again")


@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_between_comparison_and_swap_nobody_moves_the_champion(
    registry: Registry, encoder: Path, address: str, move: str
) -> None:
    """Another process promotes after this one has read the pointer."""
    first, second, third, fourth = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0, 4.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    read = registry._backend.pointer

    def read_late() -> object:
        registry._backend.pointer = read
        pointer = read()
        Registry(address, None).promote(third, expected=second)
        return pointer

    registry._backend.pointer = read_late
    loser = fourth if move == "promote" else first
    with pytest.raises(
        ValueError, match=f"at the same moment, to {third}, so {loser} did not become champion"
    ):
        registry.promote(fourth, expected=second) if move == "promote" else registry.rollback(
            "eve", "worse on site B"
        )
    assert Registry(address, None).champion() == third


def test_one_waits_for_the_other(folder_address: str, encoder: Path) -> None:
    """While the lock of a folder is held nothing is promoted: the compare and the swap are one."""
    registry = Registry(folder_address, None)
    version = add(registry, encoder, 1.0)
    process = promoter(folder_address, version)
    assert process.stdin is not None
    with locked(Path(folder_address)):
        process.stdin.write("\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        assert registry.champion() is None
    assert process.communicate(timeout=60)[0] == "won\n"
    assert registry.champion() == version


def test_a_killed_process_holds_no_lock(folder_address: str, encoder: Path) -> None:
    registry = Registry(folder_address, None)
    version = add(registry, encoder, 1.0)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder_address], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    registry.promote(version, expected=None)
    assert registry.champion() == version


HOLD = """
import sys, time
from pathlib import Path
from arl.storage.backends import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("file", "change", "state"),
    [
        ("tasks/breast/model.safetensors", flipped, "changed"),
        ("tasks/breast/model.safetensors", lambda content: content[:-7], "changed"),
        ("card.md", flipped, "changed"),
        ("extra.bin", lambda _: b"x", "not listed"),
        ("encoder/config.json", lambda _: None, "missing"),
    ],
    ids=["changed", "truncated", "document", "added", "removed"],
)
def test_a_tampered_version_is_not_used(
    registry: Registry,
    encoder: Path,
    address: str,
    file: str,
    change: Callable[[bytes], bytes | None],
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = add(registry, encoder, 1.0)
    tamper(address, version, file, change)
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "another"))  # another machine
    for use in (
        lambda: registry.fetch(version),
        lambda: registry.promote(version, expected=None),
        lambda: add(registry, encoder, 1.0),
    ):
        with pytest.raises(
            ValueError, match=f"{file} is {state}: version {version} is not what was released"
        ):
            use()
    assert registry.champion() is None


def test_a_manifest_changed_with_its_file_is_detected(
    registry: Registry, encoder: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, other = add(registry, encoder, 1.0), add(registry, encoder, 2.0)
    source = registry.fetch(other)
    for name in ("tasks/breast/model.safetensors", "manifest.json", "tasks/breast/config.json"):
        tamper(address, version, name, lambda _, name=name: (source / name).read_bytes())
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "another"))
    with pytest.raises(ValueError, match="changed with its manifest"):
        registry.fetch(version)


def test_rolling_back_to_a_tampered_version_is_refused(
    registry: Registry, encoder: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = add(registry, encoder, 1.0), add(registry, encoder, 2.0)
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    tamper(address, first, "card.md", lambda _: b"another")
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "another"))
    with pytest.raises(ValueError, match=r"card\.md is changed"):
        registry.rollback("eve", "worse on site B")
    assert registry.champion() == second


def test_a_champion_that_is_gone_is_told(registry: Registry, encoder: Path, address: str) -> None:
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    tamper(
        address,
        version,
        "upload" if address.startswith("s3://") else "manifest.json",
        lambda _: None,
    )
    with pytest.raises(ValueError, match=f"has no version '{version}'"):
        registry.champion()


def test_pickles_and_broken_weights_are_refused(
    registry: Registry, encoder: Path, tmp_path: Path, address: str
) -> None:
    folder = model(tmp_path / "models/pickled", 1.0)
    whole = (folder / "model.safetensors").read_bytes()
    for content in (pickle.dumps({"weight": [1.0]}), whole[:-4], b""):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated or not safetensors"):
            registry.add_version(encoder, {"breast": folder}, documents={}, provenance=Provenance())
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        registry.add_version(encoder, {"breast": folder}, documents={}, provenance=Provenance())
    assert stored(address) == {}


def test_other_bad_input(registry: Registry, encoder: Path) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        registry.add_version(encoder, {}, documents={}, provenance=Provenance())
    with pytest.raises(ValueError, match=r"task '\.\./x' cannot name a folder"):
        registry.add_version(encoder, {"../x": encoder}, documents={}, provenance=Provenance())
    for use in (registry.fetch, registry.manifest):
        with pytest.raises(ValueError, match="has no version 'abc'"):
            use("abc")
    with pytest.raises(ValueError, match="has no version 'abc'"):
        registry.promote("abc", expected=None)


def test_a_failed_release_leaves_nothing(registry: Registry, encoder: Path, address: str) -> None:
    task = model(encoder.parent / "breast", 1.0)
    provenance = Provenance(data=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):  # a provenance that JSON cannot hold fails after the copy
        registry.add_version(encoder, {"breast": task}, documents={}, provenance=provenance)
    assert registry.versions() == []
    assert [key for key in stored(address) if key != ".lock"] == []


def test_a_full_disk_leaves_nothing_and_says_so(folder_address: str, encoder: Path) -> None:
    """The operating system refuses to write more than 200 bytes to a file, in the middle of the
    weights.
    """
    registry = Registry(folder_address, None)
    before = add(registry, encoder, 1.0)
    registry.promote(before, expected=None)
    task = model(encoder.parent / "breast", 2.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            registry.add_version(encoder, {"breast": task}, documents={}, provenance=Provenance())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (registry.versions(), registry.champion()) == ([before], before)
    assert [path.name for path in (Path(folder_address) / "versions").iterdir()] == [before]
    assert (
        registry.add_version(encoder, {"breast": task}, documents={}, provenance=Provenance())
        in registry.versions()
    )


KILLED = """
import os, sys
from pathlib import Path
from arl.storage import backends
from arl.storage.metadata import Provenance
from arl.storage.registry import Registry
upload, count = backends.Store.upload, 0
def dies(store, key, file):
    global count
    count += 1
    if count == 3:
        os._exit(9)
    upload(store, key, file)
backends.Store.upload = dies
registry, tasks = Registry(sys.argv[1], None), {"breast": Path(sys.argv[3])}
registry.add_version(Path(sys.argv[2]), tasks, documents={}, provenance=Provenance())
"""


@pytest.mark.slow
def test_a_half_uploaded_version_is_none_and_a_rerun_releases_it(
    bucket_address: str, encoder: Path
) -> None:
    task = model(encoder.parent / "breast", 1.0)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, bucket_address, encoder, task], check=False
    )
    assert died.returncode == 9
    assert len(stored(bucket_address)) == 2
    registry = Registry(bucket_address, None)
    assert (registry.versions(), registry.champion()) == ([], None)
    version = registry.add_version(encoder, {"breast": task}, documents={}, provenance=Provenance())
    registry.promote(version, expected=None)
    assert registry.champion() == version
    registry.fetch(version)


@pytest.mark.slow
def test_what_a_killed_upload_left_goes_when_it_is_old(
    bucket_address: str, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = model(encoder.parent / "breast", 1.0)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, bucket_address, encoder, task], check=False
    )
    assert died.returncode == 9
    left = set(stored(bucket_address))
    registry = Registry(bucket_address, None)
    first = registry.add_version(encoder, {"breast": task}, documents={}, provenance=Provenance())
    second = add(registry, encoder, 2.0)
    assert left <= set(stored(bucket_address))  # it may be under way
    monkeypatch.setattr(backends, "_ABANDONED", timedelta(0))
    third = add(registry, encoder, 3.0)
    assert not left & set(stored(bucket_address))
    assert registry.versions() == sorted([first, second, third])
    for version in (first, second, third):
        registry.fetch(version)


@pytest.mark.slow
def test_an_upload_that_loses_bytes_is_no_version(
    bucket_address: str, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store.upload

    def cut(store: Store, key: str, file: Path) -> None:
        if key.endswith("breast/model.safetensors"):
            store.put(key, file.read_bytes()[:-1])
        else:
            whole(store, key, file)

    registry = Registry(bucket_address, None)
    monkeypatch.setattr(Store, "upload", cut)
    with pytest.raises(
        OSError, match=r"breast/model\.safetensors has \d+ of \d+ bytes: upload again"
    ):
        add(registry, encoder, 1.0)
    assert (registry.versions(), stored(bucket_address)) == ([], {})


@pytest.mark.slow
def test_two_runs_that_release_the_same_models_at_once_make_one_version(
    bucket_address: str, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Registry(bucket_address, None), Registry(bucket_address, None)
    check = Store.check_create_once

    def late(store: Store) -> None:
        monkeypatch.setattr(Store, "check_create_once", check)
        add(second, encoder, 1.0)
        check(store)

    monkeypatch.setattr(Store, "check_create_once", late)
    version = add(first, encoder, 1.0)
    assert first.versions() == [version]
    assert (
        len(stored(bucket_address)) == 7
    )  # six files once, and the object that makes them a version


@pytest.mark.slow
def test_an_expired_secret_promotes_nothing(
    bucket_address: str, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(bucket_address, None)
    version = add(registry, encoder, 1.0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-longer-valid")
    outdated = Registry(bucket_address, None)
    for use in (
        lambda: outdated.promote(version, expected=None),
        outdated.champion,
        outdated.versions,
    ):
        with pytest.raises(PermissionError, match=r"refuses the request .* check the credentials"):
            use()
    assert registry.champion() is None


def test_an_unreachable_store_is_named(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses connections
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name, value in {
            "ENDPOINT_URL": endpoint,
            "ACCESS_KEY_ID": "a",
            "SECRET_ACCESS_KEY": "b",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        with pytest.raises(ConnectionError, match=f"{endpoint} cannot be reached"):
            add(Registry("s3://bucket/models", None), encoder, 1.0)


@pytest.fixture
def keys(tmp_path: Path, new_keys: Callable[[Path], Keys]) -> Keys:
    return new_keys(tmp_path / "keys")


def test_a_signed_version_is_verified_on_load(address: str, encoder: Path, keys: Keys) -> None:
    registry = Registry(address, keys)
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    assert (registry.fetch(version) / "model.sig").is_file()
    assert Registry(address, Keys(keys.public)).fetch(version)  # who loads has no private key


def test_files_changed_with_hashes_and_name_are_found_by_the_signature(
    address: str, encoder: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may write makes a whole version of his own, which only the signature tells from
    ours.
    """
    forged = add(Registry(address, None), encoder, 666.0)
    registry = Registry(address, keys)
    ours = add(registry, encoder, 1.0)
    signature = (registry.fetch(ours) / "model.sig").read_bytes()
    with pytest.raises(ValueError, match="is not signed, and the registry is configured as signed"):
        registry.promote(forged, expected=None)
    tamper(address, forged, "model.sig", lambda _: signature)
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "another"))
    with pytest.raises(ValueError, match=r"signature of .* does not hold"):
        registry.promote(forged, expected=None)
    assert registry.champion() is None


def test_a_version_of_another_signer_is_refused(
    address: str, encoder: Path, keys: Keys, tmp_path: Path, new_keys: Callable[[Path], Keys]
) -> None:
    version = add(Registry(address, keys), encoder, 1.0)
    with pytest.raises(ValueError, match=r"signature of .* does not hold .*of another key"):
        Registry(address, new_keys(tmp_path / "others")).promote(version, expected=None)


def test_without_a_private_key_nothing_is_released(address: str, encoder: Path, keys: Keys) -> None:
    with pytest.raises(ValueError, match=r"\$ARL_SIGNING_KEY names no private key"):
        add(Registry(address, Keys(keys.public)), encoder, 1.0)
    assert Registry(address, None).versions() == []


@pytest.mark.slow
def test_the_cache_is_not_trusted(bucket_address: str, encoder: Path, tmp_path: Path) -> None:
    registry = Registry(bucket_address, None)
    version = add(registry, encoder, 1.0)
    kept = registry.fetch(version)
    assert kept.is_relative_to(tmp_path / "cache")
    weights = kept / "tasks/breast/model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    with pytest.raises(ValueError, match="is changed"):
        registry.fetch(version)
    assert registry.fetch(version) == kept  # downloaded again


@pytest.fixture
def signed_registry(
    address: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    return Registry(address, keys)


def test_a_relative_registry_is_signed_and_verified(
    encoder: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`registry` is the address in dvc.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    registry = Registry("registry", keys)
    version = add(registry, encoder, 1.0)
    registry.promote(version, expected=None)
    assert registry.verify(version).key is not None
    assert Registry(tmp_path / "registry", keys).champion() == version


def pointer_key(address: str) -> str:
    return max(key for key in stored(address) if key.startswith("champion"))


def replace_pointer(address: str, content: bytes) -> None:
    if address.startswith("s3://"):
        Store(address).put(pointer_key(address), content)
    else:
        Path(address, pointer_key(address)).write_bytes(content)


def test_the_pointer_is_signed(
    signed_registry: Registry,
    address: str,
    encoder: Path,
    tmp_path: Path,
    new_keys: Callable[[Path], Keys],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (add(signed_registry, encoder, value) for value in (1.0, 2.0))
    signed_registry.promote(first, expected=None)
    whole = stored(address)[pointer_key(address)]
    pointer = signed_registry.pointer()
    assert pointer is not None
    assert (pointer.number, pointer.version, pointer.action) == (1, first, "promote")
    forger = Registry(address, new_keys(tmp_path / "forger"))
    plain = {**pointer.to_json(), "version": second, "history": [second], "number": 9}
    # Somebody who may write names a version that was never promoted.
    for content in (
        json.dumps(plain).encode(),
        b"{}",
        b"[]",
        whole.replace(b"payload", b"Payload"),
    ):
        replace_pointer(address, content)
        with pytest.raises(ValueError, match=r"pointer|signed"):
            signed_registry.champion()
    replace_pointer(address, json.dumps(plain).encode())
    with pytest.raises(ValueError, match="is not signed"):
        signed_registry.champion()
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "forgers cache"))
    replace_pointer(address, whole)
    with pytest.raises(ValueError, match="by no trusted key"):
        forger.champion()


def test_an_older_pointer_is_refused(
    signed_registry: Registry, address: str, encoder: Path
) -> None:
    first, second = (add(signed_registry, encoder, value) for value in (1.0, 2.0))
    signed_registry.promote(first, expected=None)
    old = stored(address)[pointer_key(address)]
    signed_registry.promote(second, expected=first)
    replace_pointer(address, old)
    for use in (signed_registry.champion, lambda: signed_registry.rollback("eve", "why")):
        with pytest.raises(ValueError, match=r"has number 1, and this machine has read number 2"):
            use()


def test_a_rollback_bars_the_version_and_says_who_when_and_why(
    registry: Registry, encoder: Path
) -> None:
    first, second, third = (add(registry, encoder, value) for value in (1.0, 2.0, 3.0))
    registry.promote(first, expected=None)
    registry.promote(second, expected=first)
    for person, reason in (("", "why"), ("eve", " ")):
        with pytest.raises(ValueError, match="name of a person and a reason"):
            registry.rollback(person, reason)
    assert registry.rollback("eve", "worse on site B") == first
    pointer = registry.pointer()
    assert pointer is not None
    assert (pointer.number, pointer.action, pointer.person, pointer.reason) == (
        3,
        "rollback",
        "eve",
        "worse on site B",
    )
    with pytest.raises(ValueError, match=r"rolled back by eve at .*worse on site B.* cannot be"):
        registry.promote(second, expected=first)
    registry.promote(third, expected=first)
    with pytest.raises(ValueError, match="cannot be promoted again"):
        registry.promote(second, expected=third)
    assert registry.history() == [first, third]


def test_rotation_and_revocation(
    address: str,
    encoder: Path,
    tmp_path: Path,
    new_keys: Callable[[Path], Keys],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    old, new = new_keys(tmp_path / "old"), new_keys(tmp_path / "new")
    first = add(Registry(address, old), encoder, 1.0)
    Registry(address, old).promote(first, expected=None)
    rotated = Registry(address, Keys((*old.public, *new.public), new.private))
    second = add(rotated, encoder, 2.0)
    rotated.promote(second, expected=first)
    assert rotated.verify(first).key == key_id(old.public[0])
    assert rotated.verify(second).key == key_id(new.public[0])
    revoked = Registry(address, Keys((*old.public, *new.public), new.private, old.public))
    assert revoked.champion() == second
    with pytest.raises(ValueError, match="which is revoked"):
        revoked.rollback("eve", "second is worse")
    assert revoked.sign(first) == key_id(new.public[0])
    assert revoked.verify(first).key == key_id(new.public[0])
    assert revoked.rollback("eve", "second is worse") == first


def test_a_pointer_of_a_revoked_key_is_signed_again(
    address: str,
    encoder: Path,
    tmp_path: Path,
    new_keys: Callable[[Path], Keys],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    old, new = new_keys(tmp_path / "old"), new_keys(tmp_path / "new")
    version = add(Registry(address, old), encoder, 1.0)
    Registry(address, old).promote(version, expected=None)
    revoked = Registry(address, Keys((*old.public, *new.public), new.private, old.public))
    with pytest.raises(ValueError, match="which is revoked"):
        revoked.champion()
    revoked.sign(version)
    revoked.sign_pointer("eve", "the laptop was stolen")
    assert revoked.champion() == version
    pointer = revoked.pointer()
    assert pointer is not None
    assert (pointer.number, pointer.action, pointer.history) == (2, "sign", [version])


def test_messages_hold_no_signed_address(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store that answers nothing: neither message nor traceback may grant a write."""
    import traceback

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-example")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    store = Store("s3://bucket/models")
    uses = (
        lambda: store.put_if_absent("champion/00000001", b"x"),
        lambda: store.get("champion/00000001"),
        lambda: store.move("champion", b"x", None),
    )
    for use in uses:
        with pytest.raises(ConnectionError) as caught:
            use()
        text = "".join(traceback.format_exception(caught.value))
        assert "X-Amz" not in text
        assert "AKIDEXAMPLE" not in text


def test_addresses_lose_their_queries() -> None:
    url = "http://host/bucket/key?X-Amz-Signature=abc&X-Amz-Expires=3600"
    assert redacted(f"exceeded with url: {url} (Caused by x)") == (
        "exceeded with url: http://host/bucket/key?[redacted] (Caused by x)"
    )
