import hashlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from arl import files


class PowerCutError(Exception):
    pass


def half_write(context: AbstractContextManager[Path]) -> None:
    with context as partial:
        (partial / "new" if partial.is_dir() else partial).write_text("half")
        raise PowerCutError


def test_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with files.atomic_directory(target) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b.txt").write_text("1")
        assert not target.exists()
        inode = folder.stat().st_ino
    assert target.stat().st_ino == inode, "copied, not renamed: a kill would leave a half"
    assert (target / "a" / "b.txt").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_failed_directory_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with files.atomic_directory(target) as folder:
        (folder / "old").touch()
    with pytest.raises(PowerCutError):
        half_write(files.atomic_directory(target))
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_directory_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("a file")
    for name in ("first", "second"):
        with files.atomic_directory(target) as folder:
            (folder / name).touch()
    assert [path.name for path in target.iterdir()] == ["second"]


def test_remains_of_a_killed_run_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").touch()
    with files.atomic_directory(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_linked_folder_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with files.atomic_directory(tmp_path / "out"):
        pass
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert not (tmp_path / "out").is_symlink()


def test_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.json"
    files.write_json(target, {"v": 1})
    with pytest.raises(PowerCutError):
        half_write(files.atomic_file(target))
    assert files.read_json(target) == {"v": 1}
    assert [path.name for path in target.parent.iterdir()] == ["x.json"]


def test_json_is_strict_and_independent_of_key_order(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"x": 1, "a": [0.1]})
    files.write_json(tmp_path / "b", {"a": [0.1], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "c", {"auroc": float("nan")})
    assert not (tmp_path / "c").exists()


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        files.read_json(tmp_path / "broken.json")


def test_hash_is_sha256_across_chunks(tmp_path: Path) -> None:
    content = os.urandom(files._CHUNK + 1)
    (tmp_path / "x").write_bytes(content)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_tree_hash_sees_names_contents_and_boundaries(tmp_path: Path) -> None:
    def tree(name: str, entries: dict[str, str]) -> str:
        for path, content in entries.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return files.tree_hash(tmp_path / name)

    first = tree("a", {"x": "1", "d/y": "2"})
    assert first == tree("b", {"d/y": "2", "x": "1"})
    others = [
        tree("c", {"x": "1", "d/z": "2"}),
        tree("d", {"x": "12", "d/y": ""}),
        tree("e", {"x": "1", "y": "2"}),
    ]
    assert len({first, *others}) == 4
