"""Layouts are found a little above or below the root, in any case, without litter."""

from pathlib import Path

import pytest

from arl.ingest import folders


def make(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def test_natural_order_without_hidden_files_and_litter(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a10.png",
        "a9.png",
        "A1.png",
        "Thumbs.db",
        ".DS_Store",
        "__MACOSX/a1.png",
        "README",
    )
    assert [path.name for path in folders.entries(tmp_path)] == [
        "A1.png",
        "README",
        "a9.png",
        "a10.png",
    ]


@pytest.mark.parametrize("above", ["", "x", "x/y", "x/y/z/w"])
def test_the_layout_is_found_up_to_four_folders_below_the_root_in_any_case(
    tmp_path: Path, above: str
) -> None:
    make(tmp_path / above, "Images/1.png", "masks/1.png")
    make(tmp_path / "__MACOSX", "images/1.png", "masks/1.png")
    assert folders.locate(tmp_path, "images", "masks") == tmp_path / above


def test_a_layout_that_is_too_deep_missing_or_there_twice(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c/d/e/images/1.png")
    with pytest.raises(
        FileNotFoundError, match="nor a folder in it holds images: is it the unpacked"
    ):
        folders.locate(tmp_path, "images")
    with pytest.raises(FileNotFoundError, match=r"holds images, masks and INFO\.csv"):
        folders.locate(tmp_path, "images", "masks", "INFO.csv")
    make(tmp_path, "x/images/1.png", "y/images/1.png")
    with pytest.raises(ValueError, match=r"more than once: choose one as the root, .*x or .*y"):
        folders.locate(tmp_path, "images")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        folders.locate(tmp_path / "nowhere", "images")


def test_members_by_the_first_name_that_is_there(tmp_path: Path) -> None:
    make(tmp_path, "TRAIN.json", "val.json")
    assert folders.child(tmp_path, "absent.json", "train.json") == tmp_path / "TRAIN.json"
    assert folders.child(tmp_path, "absent.json") is None
    with pytest.raises(FileNotFoundError, match=r"absent.json does not exist: is the root"):
        folders.member(tmp_path, "absent.json")


def test_pictures_and_everything_else(tmp_path: Path) -> None:
    make(tmp_path, "1.JPG", "1.png", "2.Png", "10.tif", "notes.txt", "old/1.png", "Thumbs.db")
    named, others = folders.pictures(tmp_path)
    assert [file.name for file in named.values()] == ["1.JPG", "2.Png", "10.tif"]
    assert [file.relative_to(tmp_path).as_posix() for file in others] == [
        "1.png",
        "notes.txt",
        "old/1.png",
    ]
