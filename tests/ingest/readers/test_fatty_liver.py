"""Fatty liver: frames of the MATLAB file by patient, each class in its share, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from arl.ingest.readers import fatty_liver

NAME = "dataset_liver_bmodes_steatosis_assessment_IJCARS.mat"
FIELDS = ["id", "class", "fat", "images"]
FAT = {1: 3, 2: 20, 3: 0, 4: 35, 5: 5, 6: 60, 7: 2, 8: 90, 9: 4, 10: 7, 11: 1, 12: 15, 13: 10}
FRAMES = 3


def images(patient: int) -> np.ndarray:
    return np.random.default_rng(patient).integers(0, 256, (FRAMES, 41, 59), dtype=np.uint8)


def patient(number: int, **changes: object) -> tuple[object, ...]:
    told = {
        "id": number,
        "class": int(FAT[number] > 5),
        "fat": FAT[number],
        "images": images(number),
    } | changes
    return tuple(told[name] for name in FIELDS)


def write(
    root: Path, patients: list[tuple[object, ...]], fields: list[str] = FIELDS, name: str = NAME
) -> Path:
    root.mkdir(exist_ok=True)
    data = np.zeros((1, len(patients)), [(field, object) for field in fields])
    for at, told in enumerate(patients):
        data[0, at] = told
    savemat(root / name, {"data": data})
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "liver", [patient(number) for number in FAT])


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_labels_and_patients(root: Path, batch_of: Callable, workers: int) -> None:
    done = batch_of(fatty_liver, root.parent, workers)
    assert done.refused == {}
    assert done.ids() == [f"{number}/{frame}" for number in FAT for frame in range(FRAMES)]
    assert done.column("frame") == {
        f"{number}/{frame}": frame for number in FAT for frame in range(FRAMES)
    }
    labels = {
        f"{number}/{frame}": "fatty" if fat > 5 else "normal"
        for number, fat in FAT.items()
        for frame in range(3)
    }
    assert done.column("label") == labels
    assert (done.rows["clip"] == done.rows["patient"]).all()
    assert done.column("patient")["7/2"] == "fatty-liver:7"
    assert set(done.rows["anatomy"]) == {"liver"}
    for number in FAT:
        assert np.array_equal(done.image(f"{number}/2"), images(number)[2])


def test_patients_are_not_divided_and_classes_have_their_share(
    root: Path, batch_of: Callable
) -> None:
    done = batch_of(fatty_liver, root)
    split = done.split("default")
    of = {number: {split[f"{number}/{frame}"] for frame in range(FRAMES)} for number in FAT}
    assert all(len(splits) == 1 for splits in of.values())
    for fatty in (True, False):
        assert {next(iter(of[number])) for number, fat in FAT.items() if (fat > 5) == fatty} == {
            "train",
            "val",
            "test",
        }


def test_frames_on_the_last_axis(root: Path, batch_of: Callable) -> None:
    write(root, [patient(1, images=np.moveaxis(images(1), 0, 2))])
    assert np.array_equal(batch_of(fatty_liver, root).image("1/2"), images(1)[2])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class": 2}, "class 2.0 is not one of 0, 1"),
        ({"class": "fatty"}, "class None is not one of 0, 1"),
        ({"class": 0}, "class 0 contradicts fat 20 %, of which more than 5 is fatty"),
        ({"fat": 120}, "fat 120.0 is no percentage"),
        (
            {"images": images(2).astype(np.float64)},
            "images holds float64 (3, 41, 59), expected uint8",
        ),
        (
            {"images": images(2)[0]},
            "images holds uint8 (41, 59), expected uint8 frames x rows x columns",
        ),
    ],
)
def test_refusals(root: Path, batch_of: Callable, changes: dict[str, object], reason: str) -> None:
    write(root, [patient(1), patient(2, **changes), patient(3)])
    done = batch_of(fatty_liver, root)
    assert list(done.refused) == [f"{NAME}:1 2"]
    assert done.refused[f"{NAME}:1 2"].startswith(reason)
    assert len(done.rows) == 2 * FRAMES


def test_an_id_given_twice(root: Path, batch_of: Callable) -> None:
    write(root, [patient(1), patient(3, id=1)])
    assert batch_of(fatty_liver, root).refused == {
        f"{NAME}:1 1": "an image with this id was accepted before"
    }


def test_other_roots(root: Path, tmp_path: Path) -> None:
    write(root, [patient(1)[:2]], ["id", "class"])
    with pytest.raises(
        ValueError, match=r"data lacks the fields \['fat', 'images'\]; it has \['id', 'class'\]"
    ):
        fatty_liver.read(root)
    (root / "Liver.MAT").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds several such .mat files, leave one"):
        fatty_liver.read(root)
    for name in (NAME, "Liver.MAT"):
        (root / name).unlink()
    (root / "more.mat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"more.mat is not a readable MATLAB file"):
        fatty_liver.read(root)
    (root / "mask.mat").write_bytes(b"")  # two of another set
    with pytest.raises(
        FileNotFoundError, match=r"nor a folder in it holds the .mat file of the set"
    ):
        fatty_liver.read(root)


def test_a_file_that_ends_the_process_is_an_error(root: Path) -> None:
    data = (root / NAME).read_bytes()
    flags = bytes([6, 0, 0, 0, 8, 0, 0, 0, 14])  # of an array of int64
    assert flags + b"\x00" in data
    (root / NAME).write_bytes(
        data.replace(flags + b"\x00", flags + b"\x6c", 1)
    )  # complex: scipy 1.15+ runs astray
    with pytest.raises(
        ValueError,
        match=r"damaged MATLAB file: reading it ends the process|is not a readable MATLAB",
    ):
        fatty_liver.read(root)
