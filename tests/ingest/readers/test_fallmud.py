"""FALLMUD: both parts, masks by stem, grey images, what is refused."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.corpus import manifest, splits
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.batches import write_inputs
from arl.ingest.readers import fallmud


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (35, 47), dtype=np.uint8)


def fascicles(number: int) -> np.ndarray:
    mask = np.zeros((35, 47), np.uint8)
    mask[5 + number, 4:30] = 255
    mask[7 + number, 4:30] = 90  # ringing of a JPEG mask, below the threshold
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "FALLMUD"
    for part, name, suffix in (
        ("NeilCronin", "img_0000{}", ".tif"),
        ("RyanCunningham", "{}", ".png"),
    ):
        for folder in ("images", "fascicle_masks", "aponeurosis_masks"):
            (root / part / folder).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(
                str(root / part / "images" / f"{name.format(number)}{suffix}"), picture(number)
            )
            mask = root / part / "fascicle_masks" / f"{name.format(number)}.png"
            cv2.imwrite(str(mask), fascicles(number))
    return root


def test_both_parts_with_masks_of_another_suffix(root: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "data"
    with BatchWriter(
        corpus,
        "fallmud",
        "0000",
        512,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(fallmud.read(root), writer)
    rows = manifest.read_manifest(corpus)
    keys = [f"NeilCronin/img_0000{n}" for n in range(3)] + [f"RyanCunningham/{n}" for n in range(3)]
    assert rows["id"].tolist() == [f"fallmud:{key}" for key in keys]
    assert rows[["anatomy", "mask"]].drop_duplicates().values.tolist() == [["muscle", "fascicle"]]
    assert splits.grouping(rows) == "image"  # no patients: nobody may claim a split by patient
    for number, image in enumerate(read_images(corpus, rows)):
        assert np.array_equal(image, picture(number % 3))
    mask = read_masks(corpus, rows)[1]
    assert mask is not None
    assert np.array_equal(mask, fascicles(1) >= 100)


def test_coloured_frames_of_the_screen_become_grey(root: Path) -> None:
    coloured = cv2.merge([picture(0), picture(0), picture(0) // 2])
    cv2.imwrite(str(root / "NeilCronin/images/img_00000.tif"), coloured)
    record = next(iter(fallmud.read(root)[0].records()))
    assert record.image.ndim == 2


def test_what_has_no_partner_or_is_torn_is_quarantined(root: Path, tmp_path: Path) -> None:
    (root / "RyanCunningham/fascicle_masks/0.png").unlink()
    (root / "RyanCunningham/images/1.png").unlink()
    (root / "NeilCronin/images/img_00002.tif").write_bytes(b"II*\x00")
    cv2.imwrite(str(root / "RyanCunningham/fascicle_masks/2.png"), fascicles(0).T)
    with BatchWriter(
        tmp_path / "data",
        "fallmud",
        "0000",
        512,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(fallmud.read(root), writer)
    refused = manifest.read_quarantine(tmp_path / "data")[["input", "reason"]].values.tolist()
    assert [name for name, _ in refused] == [
        "NeilCronin/images/img_00002.tif",
        "RyanCunningham/images/2.png",
        "RyanCunningham/fascicle_masks/1.png",
    ]
    assert refused[0][1].startswith("img_00002.tif is not a readable picture")
    assert [reason for _, reason in refused[1:]] == [
        "2.png is 35x47, its image 47x35",
        "images holds nothing of this name",
    ]
    rows = manifest.read_manifest(tmp_path / "data").set_index("id")
    assert len(rows) == 3
    assert rows["mask"].isna().sum() == 1  # 0.png, whose mask is gone


def test_a_root_without_either_part(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="holds neither NeilCronin/images nor RyanCunningham/images"
    ):
        fallmud.read(tmp_path)


def test_the_real_download() -> None:
    if "ARL_REAL_DATA" not in os.environ:
        pytest.skip("ARL_REAL_DATA does not name the folder of the real downloads")
    inputs = fallmud.read(Path(os.environ["ARL_REAL_DATA"]) / "FALLMUD")
    assert len(inputs) >= 200
    record = next(iter(inputs[0].records()))
    assert record.image.ndim == 2
    assert record.mask is not None
    assert 0 < record.mask.mean() < 0.2
