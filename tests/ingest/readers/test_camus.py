"""CAMUS in miniature: NIfTI in the official order of axes, masks, cfg and split files."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.splits import grouping, read_split
from arl.ingest.readers import camus

HEIGHT, WIDTH, FRAMES = 67, 53, 6
PATIENTS = {"patient0001": "training", "patient0002": "validation", "patient0003": "testing"}
ED, ES = 2, 6  # 1-based


def sector(level: int) -> np.ndarray:
    """(H, W): an apex at the top that opens downwards, and a bright mark on its right."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.where(np.abs(columns - WIDTH // 2) < 2 + 0.35 * rows, level, 0).astype(np.uint8)
    picture[50:56, 30:36] = 250
    return picture


def labels(shift: int) -> np.ndarray:
    """Ventricle in the middle, muscle around it, atrium below."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[8 + shift : 42, 18:36] = 2
    found[11 + shift : 40, 21:33] = 1
    found[42:55, 22:32] = 3
    return found


def save(file: Path, upright: np.ndarray, dtype: type = np.uint8) -> None:
    """(H, W[, t]) as the release has it: (x, y[, t])."""
    image = nibabel.Nifti1Image(upright.swapaxes(0, 1).astype(dtype), np.diag([-0.3, -0.15, 1, 1]))
    image.to_filename(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "CAMUS_public"
    (root / "database_split").mkdir(parents=True)
    for patient, subgroup in PATIENTS.items():
        folder = root / "database_nifti" / patient
        folder.mkdir(parents=True)
        with (root / f"database_split/subgroup_{subgroup}.txt").open("a") as file:
            file.write(f"{patient}\n")
        for view in ("2CH", "4CH"):
            stem = f"{patient}_{view}"
            cine = np.stack([sector(60 + 10 * frame) for frame in range(FRAMES)], axis=2)
            save(folder / f"{stem}_half_sequence.nii.gz", cine)
            save(folder / f"{stem}_half_sequence_gt.nii.gz", np.stack([labels(0)] * FRAMES, axis=2))
            for phase, frame, shift in (("ED", ED, 0), ("ES", ES, 4)):
                save(folder / f"{stem}_{phase}.nii.gz", cine[..., frame - 1])
                save(folder / f"{stem}_{phase}_gt.nii.gz", labels(shift))
            cfg = f"ED: {ED}\nES: {ES}\nNbFrame: {FRAMES}\nSex: F\nAge: 56\n"
            cfg += "ImageQuality: Good\nEF: 50\nFrameRate: 50.1\n"
            (folder / f"Info_{view}.cfg").write_text(cfg)
    return root


def test_frames_views_masks_and_splits(root: Path, ingest: Callable) -> None:
    done = ingest(camus, root)
    rows = done.rows
    assert rows["id"].tolist() == [
        f"source:{patient}/{view}/{frame:05d}"
        for patient in PATIENTS
        for view in ("2CH", "4CH")
        for frame in range(FRAMES)
    ]
    assert rows["label"].tolist() == (["A2C"] * FRAMES + ["A4C"] * FRAMES) * 3
    assert grouping(rows) == "patient"
    assert rows.groupby("clip")["frame"].apply(list).tolist() == [list(range(FRAMES))] * 6
    masked = rows[rows["mask"] == "lv"]
    assert masked["frame"].tolist() == [ED - 1, ES - 1] * 6
    assert rows["pixel_spacing_mm"].unique() == pytest.approx([0.15])
    expected = {"patient0001": "train", "patient0002": "val", "patient0003": "test"}
    for protocol in ("official", "default"):
        found = read_split(done.corpus, rows, {"source": protocol}).tolist()
        assert found == [expected[patient.removeprefix("source:")] for patient in rows["patient"]]


def test_the_probe_is_at_the_top_and_nothing_is_mirrored(root: Path, ingest: Callable) -> None:
    done = ingest(camus, root)
    for frame, image in enumerate(read_images(done.corpus, done.rows.iloc[:FRAMES])):
        assert np.array_equal(image, sector(60 + 10 * frame))
    ed, es = read_masks(done.corpus, done.rows.iloc[[ED - 1, ES - 1]])
    assert np.array_equal(ed, labels(0) == 1)
    assert np.array_equal(es, labels(4) == 1)


@pytest.mark.parametrize("levels", ["database_nifti", "..", "."])
def test_the_root_may_be_higher_or_lower(root: Path, ingest: Callable, levels: str) -> None:
    done = ingest(camus, (root / levels).resolve())
    assert done.about["accepted"] == 6
    assert set(done.about["splits"]) == {"official", "default"}


def test_without_sequences_or_split_files(root: Path, ingest: Callable) -> None:
    for file in (root / "database_split").iterdir():
        file.unlink()
    (root / "database_split").rmdir()
    for file in root.rglob("*half_sequence*"):
        file.unlink()
    done = ingest(camus, root)
    assert done.rows["frame"].tolist() == [ED - 1, ES - 1] * 6
    assert set(done.about["splits"]) == {"default"}


def folder(root: Path) -> Path:
    return root / "database_nifti/patient0002"


def _resave(
    name: str, change: Callable[[np.ndarray], np.ndarray], dtype: type = np.uint8
) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        file = folder(root) / f"patient0002_4CH_{name}.nii.gz"
        save(file, change(np.asarray(nibabel.load(file).dataobj).swapaxes(0, 1)), dtype)

    return spoil


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda root: (folder(root) / name).write_bytes(data)


def _truncate(root: Path) -> None:
    file = folder(root) / "patient0002_4CH_ED.nii.gz"
    file.write_bytes(file.read_bytes()[:120])


def _turned(root: Path) -> None:
    for phase in ("ED", "ES"):
        for end in ("", "_gt"):
            _resave(f"{phase}{end}", lambda levels: levels[::-1])(root)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda root: (folder(root) / "patient0002_4CH_ES.nii.gz").unlink(),
            "patient0002_4CH_ES.nii.gz is missing",
        ),
        (
            lambda root: (folder(root) / "patient0002_4CH_ES_gt.nii.gz").unlink(),
            "patient0002_4CH_ES_gt.nii.gz is missing",
        ),
        (lambda root: (folder(root) / "Info_4CH.cfg").unlink(), "Info_4CH.cfg is missing"),
        (
            _write("Info_4CH.cfg", b"ED: one\nES: 6\n"),
            "Info_4CH.cfg does not give two frames, ED and ES",
        ),
        (
            _write("Info_4CH.cfg", b"ED: 1\nES: 7\n"),
            "Info_4CH.cfg gives frame 7 of a sequence of 6",
        ),
        (
            _write("Info_4CH.cfg", b"ED: 0\nES: 6\n"),
            "Info_4CH.cfg gives frame 0 of a sequence of 6",
        ),
        (_truncate, "patient0002_4CH_ED.nii.gz is not a readable NIfTI file (ImageFileError)"),
        (
            _write("patient0002_4CH_half_sequence.nii.gz", b"nothing"),
            "patient0002_4CH_half_sequence.nii.gz is not a readable NIfTI file (ImageFileError)",
        ),
        (
            _resave("ED", lambda levels: levels / 255.0, np.float32),
            "patient0002_4CH_ED.nii.gz holds levels that are not whole numbers of 0 to 255",
        ),
        (
            _resave("ED", lambda levels: np.stack([levels, levels], axis=2)),
            "patient0002_4CH_ED.nii.gz holds 2 pictures, not one",
        ),
        (
            _resave("ED_gt", lambda found: found[:, 1:]),
            "patient0002_4CH_ED_gt.nii.gz is 52x67, its image 53x67",
        ),
        (
            _resave("ED_gt", lambda found: found * 2),
            "patient0002_4CH_ED_gt.nii.gz holds label 6, expected 0 to 3",
        ),
        (
            _resave("ED_gt", lambda found: found * (found != 1)),
            "patient0002_4CH_ED_gt.nii.gz shows no left ventricle",
        ),
        (
            _turned,
            "patient0002_4CH_ED_gt.nii.gz has the atrium nearer to the probe than the ventricle: "
            "it is turned",
        ),
    ],
)
def test_a_bad_view_is_quarantined_with_its_reason(
    root: Path, ingest: Callable, spoil, reason: str
) -> None:
    spoil(root)
    done = ingest(camus, root)
    assert done.refused == {"patient0002/4CH": reason}
    assert done.about["accepted"] == 5


def test_patients_that_no_split_lists_and_stray_files(root: Path, ingest: Callable) -> None:
    (root / "database_split/subgroup_testing.txt").write_text("")
    (folder(root) / "thoughts.txt").write_text("")
    assert ingest(camus, root).refused == {
        "patient0003/2CH": "no split file lists its patient",
        "patient0003/4CH": "no split file lists its patient",
        "patient0002/thoughts.txt": "it belongs to no view",
    }


def test_a_patient_in_two_subgroups(root: Path) -> None:
    (root / "database_split/subgroup_testing.txt").write_text("patient0001\n")
    with pytest.raises(ValueError, match=r"subgroup_testing.txt: patient0001 is in two subgroups"):
        camus.read(root)


def test_a_root_without_patients(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds patient0001"):
        camus.read(tmp_path)
