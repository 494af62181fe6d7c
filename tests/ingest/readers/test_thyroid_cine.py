"""Thyroid Cine-clip: clips of the HDF5 file, diagnoses, patients kept together, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from arl.ingest.readers import thyroid_cine

# annot_id -> diagnosis, first frame_num, frames
CLIPS = {"10_": ("0", 1, 3), "11_1": ("1", 0, 2), "11_2": ("0.0", 5, 2), "12_": ("", 1, 2)} | {
    f"{number}_": (("0", "0", "1")[number % 3], 1, 2) for number in range(20, 33)
}
CLIPS |= {
    f"{number}_{nodule}": (str(nodule % 2), 0, 1) for number in range(40, 44) for nodule in (1, 2)
}
ROWS = [(clip, start + at) for clip, (_, start, count) in CLIPS.items() for at in range(count)]
SHAPE = (37, 43)


def nodule(row: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[3 : 5 + row % 7, 11:19] = 255 * (row % 3 > 0)
    return mask


def columns(picture: Callable) -> dict[str, Any]:
    return {
        "annot_id": [clip for clip, _ in ROWS],
        "frame_num": np.array([number for _, number in ROWS], np.int64),
        "image": np.stack([picture(row, *SHAPE) for row in range(len(ROWS))]),
        "mask": np.stack([nodule(row) for row in range(len(ROWS))]),
    }


def write(root: Path, content: dict[str, Any]) -> None:
    with h5py.File(root / "dataset.hdf5", "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values, chunks=True, compression="gzip")


def table(root: Path, rows: list[tuple[str, str]]) -> None:
    lines = [f"{at},{clip},61,F,{code}\n" for at, (clip, code) in enumerate(rows)]
    (root / "metadata.csv").write_text(",annot_id,age,sex,histopath_diagnosis\n" + "".join(lines))


@pytest.fixture
def root(tmp_path: Path, picture: Callable) -> Path:
    root = tmp_path / "thyroidultrasoundcineclip"
    root.mkdir()
    write(root, columns(picture))
    table(root, [(clip, code) for clip, (code, *_) in CLIPS.items()])
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_masks_and_labels(
    root: Path, batch_of: Callable, picture: Callable, workers: int
) -> None:
    done = batch_of(thyroid_cine, root.parent, workers)
    assert done.refused == {}
    assert done.ids() == [f"{clip}/{number}" for clip, number in ROWS]
    assert done.column("frame")["11_2/6"] == 1  # counted from the clip's first
    assert done.column("clip")["11_2/6"] == "thyroid-cine:11_2"
    assert done.column("patient")["11_1/0"] == done.column("patient")["11_2/5"] == "thyroid-cine:11"
    names = {"0": "benign", "0.0": "benign", "1": "malignant", "": None}
    assert done.column("label") == {
        f"{clip}/{number}": names[CLIPS[clip][0]] for clip, number in ROWS
    }
    assert set(done.rows["anatomy"]) == {"thyroid"}
    for row, (clip, number) in enumerate(ROWS):
        assert np.array_equal(done.image(f"{clip}/{number}"), picture(row, *SHAPE))
        mask = done.mask(f"{clip}/{number}")
        assert (mask is None) == (row % 3 == 0)
        assert mask is None or np.array_equal(mask, nodule(row) > 0)


def test_patients_are_not_divided_and_classes_have_their_share(
    root: Path, batch_of: Callable
) -> None:
    done = batch_of(thyroid_cine, root)
    split = done.split("default")
    assert split["11_1/0"] == split["11_2/5"]
    assert all(split[f"{number}_1/0"] == split[f"{number}_2/0"] for number in range(40, 44))
    for code in "01":
        alone = [
            clip
            for clip, (told, *_) in CLIPS.items()
            if told == code and clip.startswith(("2", "3"))
        ]
        assert {split[f"{clip}/1"] for clip in alone} >= {"train", "test"}


def test_frames_of_a_clip_apart_and_in_any_order(
    root: Path, batch_of: Callable, picture: Callable
) -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    content = columns(picture)
    content["annot_id"] = [content["annot_id"][row] for row in order]
    write(root, content | {name: content[name][order] for name in ("frame_num", "image", "mask")})
    done = batch_of(thyroid_cine, root)
    assert done.column("frame") == {
        f"{clip}/{number}": number - CLIPS[clip][1] for clip, number in ROWS
    }
    for row, (clip, number) in enumerate(ROWS):
        assert np.array_equal(done.image(f"{clip}/{number}"), picture(row, *SHAPE))


def test_fixed_strings_and_a_last_axis(root: Path, batch_of: Callable, picture: Callable) -> None:
    content = columns(picture)
    content["annot_id"] = np.array(content["annot_id"], "S")[:, None]
    content["frame_num"] = content["frame_num"][:, None]
    content["image"] = np.repeat(content["image"][..., None], 3, axis=3)
    content["mask"] = content["mask"][..., None] // 255
    write(root, content)
    done = batch_of(thyroid_cine, root)
    assert done.refused == {}
    assert np.array_equal(done.image("10_/2"), picture(1, *SHAPE))
    assert np.array_equal(done.mask("10_/2"), nodule(1) > 0)


def twice(content: dict[str, Any]) -> None:
    content["frame_num"][1] = 1


def unnamed(content: dict[str, Any]) -> None:
    content["annot_id"][:3] = ["clip"] * 3


@pytest.mark.parametrize(
    ("spoil", "rows", "name", "reason"),
    [
        (twice, {}, "dataset.hdf5 10_", "a frame_num is given twice"),
        (
            unnamed,
            {"clip": "0"},
            "dataset.hdf5 clip",
            "annot_id 'clip' does not begin with a patient's number",
        ),
        (unnamed, {}, "metadata.csv 10_", "dataset.hdf5 holds no frame of it"),
        (None, {"10_": None}, "dataset.hdf5 10_", "metadata.csv has 0 rows of it"),
        (None, {"10_": "2"}, "dataset.hdf5 10_", "histopath_diagnosis '2' is neither 0 nor 1"),
    ],
)
def test_refusals(
    root: Path, batch_of: Callable, picture: Callable, spoil, rows: dict, name: str, reason: str
) -> None:
    content = columns(picture)
    if spoil:
        spoil(content)
    write(root, content)
    told = {clip: code for clip, (code, *_) in CLIPS.items()} | rows
    table(root, [(clip, code) for clip, code in told.items() if code is not None])
    refused = batch_of(thyroid_cine, root).refused
    assert refused[name] == reason
    assert len(refused) <= 2


def test_two_rows_of_one_clip(root: Path, batch_of: Callable) -> None:
    table(root, [*((clip, code) for clip, (code, *_) in CLIPS.items()), ("10_", "1")])
    assert batch_of(thyroid_cine, root).refused == {
        "dataset.hdf5 10_": "metadata.csv has 2 rows of it"
    }


def test_a_damaged_frame_refuses_its_clip_only(
    root: Path, batch_of: Callable, picture: Callable
) -> None:
    content = columns(picture)
    with h5py.File(root / "dataset.hdf5", "w") as file:
        for name, values in content.items():
            frames = (
                {"chunks": (1, *SHAPE), "compression": "gzip"} if name in ("image", "mask") else {}
            )
            file.create_dataset(name, data=values, **frames)
        chunk = file["image"].id.get_chunk_info(1)
    data = bytearray((root / "dataset.hdf5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (root / "dataset.hdf5").write_bytes(data)
    done = batch_of(thyroid_cine, root)
    assert done.refused == {"dataset.hdf5 10_": "row 1 of the file is damaged"}
    assert len(done.rows) == len(ROWS) - 3


def test_masks_of_another_size(root: Path, batch_of: Callable, picture: Callable) -> None:
    content = columns(picture)
    write(root, content | {"mask": content["mask"][:, :-1]})
    assert set(batch_of(thyroid_cine, root).refused.values()) == {
        "its mask is 43x36, its image 43x37"
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda content: content.pop("mask"),
            r"dataset.hdf5 lacks \['mask'\]; it has \['annot_id', 'frame_num', 'image'\]",
        ),
        (lambda content: content.update(mask=content["mask"][1:]), r"its columns differ in length"),
        (
            lambda content: content.update(image=content["image"] / 2),
            r"image is float64 \(43, 37, 43\), expected uint8",
        ),
    ],
)
def test_files_of_other_columns(root: Path, picture: Callable, spoil, message: str) -> None:
    content = columns(picture)
    spoil(content)
    write(root, content)
    with pytest.raises(ValueError, match=message):
        thyroid_cine.read(root)


def test_a_damaged_index(root: Path) -> None:
    with h5py.File(root / "dataset.hdf5") as file:
        chunk = file["annot_id"].id.get_chunk_info(0)
    data = bytearray((root / "dataset.hdf5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (root / "dataset.hdf5").write_bytes(data)
    with pytest.raises(ValueError, match=r"dataset.hdf5 is a damaged HDF5 file \(OSError\)"):
        thyroid_cine.read(root)


def test_other_roots(root: Path) -> None:
    (root / "dataset.hdf5").write_bytes((root / "dataset.hdf5").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"dataset.hdf5 is not a readable HDF5 file"):
        thyroid_cine.read(root)
    (root / "metadata.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds dataset.hdf5 and metadata.csv"):
        thyroid_cine.read(root)
