"""`arl predict`: files in, calibrated probabilities, limits and pictures out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid
from scipy.special import softmax

from arl.commands.predict import predict
from arl.corpus.pixels import stretch
from arl.evaluation.input_check import REFUSED, InputCheck, appearances, pooled_tokens
from arl.files import read_json, write_json
from arl.loading.transforms import MEAN, STD
from arl.params import load
from arl.training.task_models import load_task_model

PARAMS = load([], Path(__file__).parents[2] / "params.yaml")


def picture(seed: int = 0, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    """Speckle: noise of single pixels would look like a QR code."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5), np.uint8)


def write_png(file: Path, seed: int = 0) -> Path:
    cv2.imwrite(str(file), picture(seed))
    return file


def write_dicom(file: Path, *, region: bool = True, body_part: str = "", frames: int = 1) -> Path:
    """A grey ultrasound file with a scan region of 64 x 72 pixels, and a device's name."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = UltrasoundImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Modality, header.BodyPartExamined = "US", body_part
    header.Manufacturer, header.ManufacturerModelName = "Maker", "Unseen 9"
    header.Rows, header.Columns, header.SamplesPerPixel = 80, 96, 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    if frames > 1:
        header.NumberOfFrames = frames
    pixels = np.stack([picture(seed, (80, 96)) for seed in range(frames)])
    header.PixelData = pixels.tobytes()
    if region:
        item = Dataset()
        item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
        item.RegionLocationMinX0, item.RegionLocationMinY0 = 10, 8
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 81, 71
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
        item.PhysicalDeltaX = item.PhysicalDeltaY = 0.01
        header.SequenceOfUltrasoundRegions = [item]
    header.save_as(file, enforce_file_format=True)
    return file


def test_the_champion_answers_with_calibrated_probabilities(
    released: Any, tmp_path: Path, open_page: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_png(tmp_path / "a.png"), write_dicom(tmp_path / "b.dcm")]
    predict(PARAMS, files, task="breast", registry=str(released.registry), out=tmp_path / "out")
    found = read_json(tmp_path / "out" / "predictions.json")
    about = read_json(released.evaluations / "breast" / "metrics.json")
    _, config = load_task_model(released.models / "breast")
    first = found["files"][0]
    raw = np.array([first["frames"][0][name] for name in ("benign", "malignant")])
    expected = softmax(np.log(raw) / about["temperature"])
    assert list(first["probabilities"].values()) == pytest.approx(expected, abs=2e-4)
    assert first["called"] == ("malignant" if raw[1] >= about["threshold"] else "benign")
    assert first["calibrated"]
    assert raw.sum() == pytest.approx(1, abs=1e-5)
    assert [one["file"] for one in found["files"]] == ["a.png", "b.dcm"]
    assert "No test image came from" in " ".join(found["files"][1]["notes"])
    assert config.size == 32
    page = open_page(tmp_path / "out" / "index.html")
    assert page.errors == page.requests == []
    assert page.overflow == 0
    assert "not a medical device" in page.text
    assert "probability of malignant" in page.text
    assert f"a.png: {first['called']}" in capsys.readouterr().out


def test_the_score_is_that_of_the_model_on_the_stretched_picture(
    released: Any, tmp_path: Path
) -> None:
    square = picture(3, (32, 32))
    cv2.imwrite(str(tmp_path / "square.png"), square)
    where = {"model": released.models / "breast", "evaluation": released.evaluations / "breast"}
    predict(PARAMS, [tmp_path / "square.png"], out=tmp_path / "out", **where)
    model, _ = load_task_model(released.models / "breast")
    image = (torch.from_numpy(square).float().div(255)[None, None] - MEAN) / STD
    with torch.no_grad():
        scores = model.eval()(image, torch.tensor([3])).softmax(1)[0]
    found = read_json(tmp_path / "out" / "predictions.json")["files"][0]["frames"][0]
    assert [found["benign"], found["malignant"]] == pytest.approx(scores.tolist(), abs=1e-4)


def add_check(model: Path) -> None:
    """Fit the input check of the model to speckle of `picture`."""
    network, config = load_task_model(model)
    canvases = np.stack([stretch(picture(seed), config.size)[0] for seed in range(100, 190)])
    view = (torch.from_numpy(canvases).float().div(255)[:, None] - MEAN) / STD
    tokens = pooled_tokens(network.encoder.eval(), view, torch.full((len(view),), 3))
    looks = appearances(canvases)
    InputCheck.fit((looks[:60], tokens[:60]), (looks[60:], tokens[60:])).write(model)


def test_foreign_inputs_get_no_answer_and_unusual_ones_a_warning(
    released: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = released.models / "breast"
    add_check(model)
    usual = [write_png(tmp_path / f"usual-{seed}.png", seed) for seed in range(3)]
    unusual = np.clip(picture(7).astype(float) * 1.06 + 3, 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "brighter.png"), unusual)
    cv2.imwrite(str(tmp_path / "gradient.png"), np.tile(np.arange(0, 240, 5, np.uint8), (40, 1)))
    files = [*usual, tmp_path / "brighter.png", tmp_path / "gradient.png"]
    predict(PARAMS, files, out=tmp_path / "out", model=model)
    content = read_json(tmp_path / "out" / "predictions.json")
    assert list(content["refused"]) == ["gradient.png"]
    assert "does not look like the images" in content["refused"]["gradient.png"]
    answers = {one["file"]: one for one in content["files"]}
    assert all(answers[file.name]["distance"] < 1.2 for file in usual)
    brighter = answers["brighter.png"]
    assert 1 < brighter["distance"] <= REFUSED
    assert "another scanner" in brighter["notes"][0]
    assert "WARNING" in capsys.readouterr().out


def test_the_threshold_stands_on_the_scale_of_the_probabilities(
    released: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"model": released.models / "breast", "evaluation": released.evaluations / "breast"}
    file = where["evaluation"] / "metrics.json"
    write_json(file, {**read_json(file), "synthetic": True})
    files = [write_png(tmp_path / f"{seed}.png", seed) for seed in range(6)]
    predict(PARAMS, files, out=tmp_path / "out", **where)
    for answer in read_json(tmp_path / "out" / "predictions.json")["files"]:
        reached = answer["probabilities"]["malignant"] >= answer["threshold"]
        assert answer["called"] == ("malignant" if reached else "benign")
    printed = capsys.readouterr().out
    assert "called from" in printed
    assert "no input check" in printed
    assert "synthetic images" in printed


def test_a_clip_is_the_mean_of_its_frames(released: Any, tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "clip.dcm", frames=37)
    predict(PARAMS, [file], task="breast", registry=str(released.registry), out=tmp_path / "out")
    found = read_json(tmp_path / "out" / "predictions.json")["files"][0]
    assert found["pictures"] == 16
    assert [found["frames"][0]["frame"], found["frames"][-1]["frame"]] == [0, 36]
    assert "fitted on single ones" in " ".join(found["notes"])


def test_a_video_is_read(released: Any, tmp_path: Path) -> None:
    file = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for seed in range(5):
        video.write(cv2.cvtColor(picture(seed, (48, 64)), cv2.COLOR_GRAY2BGR))
    video.release()
    predict(PARAMS, [file], task="lv", registry=str(released.registry), out=tmp_path / "out")
    found = read_json(tmp_path / "out" / "predictions.json")["files"][0]
    assert found["pictures"] == 5
    assert 0 <= found["probabilities"]["share inside lv"] <= 1
    assert found["called"] is None


def test_a_model_without_an_evaluation_says_so(released: Any, tmp_path: Path) -> None:
    predict(
        PARAMS,
        [write_png(tmp_path / "a.png")],
        model=released.models / "breast",
        out=tmp_path / "out",
    )
    found = read_json(tmp_path / "out" / "predictions.json")["files"][0]
    assert found["called"] is None
    assert not found["calibrated"]
    assert "no input check" in found["notes"][0]
    assert "its score is no probability" in found["notes"][1]


def test_files_that_cannot_be_used_are_named_and_the_others_answered(
    released: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG and no more")
    bad = [
        tmp_path / "torn.png",
        tmp_path / "missing.png",
        write_dicom(tmp_path / "thyroid.dcm", body_part="THYROID"),
    ]
    predict(
        PARAMS,
        [write_png(tmp_path / "a.png"), *bad],
        task="breast",
        registry=str(released.registry),
        out=tmp_path / "out",
    )
    refused = read_json(tmp_path / "out" / "predictions.json")["refused"]
    assert "not a readable picture" in refused["torn.png"]
    assert "it is missing" in refused["missing.png"]
    assert refused["thyroid.dcm"] == "its header says thyroid, the model is for breast"
    assert "missing.png: refused: it is missing" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none of 3 files can be used; the first: torn\.png"):
        predict(PARAMS, bad, task="breast", registry=str(released.registry), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_models_that_do_not_fit_are_refused(released: Any, tmp_path: Path) -> None:
    file = write_png(tmp_path / "a.png")
    with pytest.raises(ValueError, match="nowhere has no champion yet"):
        predict(PARAMS, [file], registry=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="there is no file to predict"):
        predict(PARAMS, [], registry=str(released.registry))
    with pytest.raises(
        ValueError, match="has models for breast, lv: choose one with --task, not ''"
    ):
        predict(PARAMS, [file], registry=str(released.registry))
    with pytest.raises(
        ValueError, match=r"is the evaluation of another model than .*models/breast"
    ):
        predict(
            PARAMS, [file], model=released.models / "breast", evaluation=released.evaluations / "lv"
        )
    with pytest.raises(ValueError, match="holds an encoder, expected the model of a task"):
        predict(PARAMS, [file], model=released.checkpoint)
    version = next((released.registry / "versions").iterdir())
    config = version / "tasks" / "breast" / "config.json"
    write_json(config, read_json(config) | {"size": 64})
    with pytest.raises(ValueError, match=r"config\.json is changed"):
        predict(PARAMS, [file], task="breast", registry=str(released.registry))


def test_a_damaged_model_gives_no_answer(released: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = released.models / "breast" / "model.safetensors"
    save_file(load_file(file) | {"head.linear.bias": torch.full((2,), float("nan"))}, file)
    with pytest.raises(ValueError, match="gives numbers that are not finite: the model is damaged"):
        predict(
            PARAMS,
            [write_png(tmp_path / "a.png")],
            model=released.models / "breast",
            out=tmp_path / "out",
        )
