"""Ask a model about files: DICOM, pictures and videos."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arl import console
from arl.corpus.pixels import fit
from arl.corpus.record import Pixels
from arl.evaluation.calibration import with_temperature
from arl.evaluation.input_check import (
    REFUSED,
    InputCheck,
    Verdict,
    appearances,
    pooled_tokens,
    verdict_of,
)
from arl.evaluation.maps import evidence, patch_maps, principal_colours
from arl.evaluation.panels import Panel
from arl.evaluation.results import Metrics
from arl.files import atomic_directory, write_json
from arl.inference.answers import Answer, Facts
from arl.inference.inputs import InputImage, as_batch, read_all_inputs
from arl.inference.model import Chosen, chosen_model
from arl.ingest.dicom.rules import AnatomyRules
from arl.loading.loader import Batch
from arl.loading.transforms import eval_view
from arl.model_config import TaskModelConfig
from arl.models.heads import TaskModel
from arl.params import Params
from arl.reports import prediction
from arl.reports.stamp import Stopwatch
from arl.tasks.make import make_kind
from arl.training.task_models import load_task_model

_SYNTHETIC = "The model was measured on synthetic images"
_LOUD = ("WARNING", _SYNTHETIC)
_MAX_DRAWN = 6  # pictures of a file that are drawn


def predict(
    params: Params,
    files: list[Path],
    *,
    out: Path = Path("out/predict"),
    task: str = "",
    model: Path | None = None,
    evaluation: Path | None = None,
    registry: str = "registry",
) -> None:
    """Predict on DICOM, image or video files.

    The model is the champion for --task, or the folder --model with its --evaluation. Writes
    predictions.json and index.html: calibrated probabilities, the measured performance of the model
    and its limits. Of a clip up to 16 frames are read and their scores are averaged. A file that
    cannot be used is listed with the reason.

    Args:
        files: DICOM, image (PNG, JPEG, TIFF, BMP) or video files.
        out: Folder of the predictions.
        task: Task whose champion predicts.
        model: Folder of a task model, in place of the champion.
        evaluation: Folder of the evaluation of --model.
        registry: The registry, a folder or s3://bucket/prefix.

    Raises:
        ValueError: no model, an evaluation of another model, or no file that can be used.

    Writes:
        out

    Examples:
        arl predict scans/*.dcm --task breast
        arl predict scan.png --model out/finetune/breast --evaluation out/evaluate/breast
    """
    if not files:
        raise ValueError("there is no file to predict: name DICOM files, pictures or videos")
    watch = Stopwatch("arl predict", show_arguments=False)
    chosen = chosen_model(model, evaluation, registry, task, params.release.signed)
    network, config = load_task_model(chosen.folder)
    check = InputCheck.read(chosen.folder)
    words = [(rule.word, rule.anatomy) for rule in params.dicom.anatomy_words]
    rules = AnatomyRules(params.dicom.anatomy_from, words, params.dicom.image_types)
    answers, refused = [], {}
    inputs = read_all_inputs(files, config.size, config.task.anatomy, rules)
    for file, pictures in zip(files, inputs, strict=True):
        if isinstance(pictures, str):
            refused[file.name] = pictures
            continue
        batch = as_batch(pictures, config.task.anatomy)
        image = eval_view(batch, config.size).image
        distance = None if check is None else _distance(network, check, batch, image)
        if distance is not None and verdict_of(distance) is Verdict.FOREIGN:
            refused[file.name] = (
                f"it does not look like the images that the model was trained on: it is "
                f"{distance:.1f} times as far from them as usual images are at most "
                f"(a call needs {REFUSED} or less)"
            )
        else:
            answers.append(_answer(network, config, chosen, pictures, (batch, image), distance))
    _print(answers, refused)
    if not answers:
        raise ValueError(
            f"none of {len(files)} files can be used; the first: {next(iter(refused.values()))}"
        )
    with atomic_directory(out) as folder:
        content = {"model": chosen.name, "task": asdict(config.task), "refused": refused}
        write_json(
            folder / "predictions.json",
            {**content, "files": [asdict(answer.facts) for answer in answers]},
        )
        prediction.write_page(chosen, config, answers, refused, watch.stamp(), folder)
    console.info(f"Open {out / 'index.html'} for the images and the limits of the model.")


def _distance(network: TaskModel, check: InputCheck, batch: Batch, image: Tensor) -> float:
    """Median distance of a file's pictures from the training images, in units of the limit."""
    network.eval()
    tokens = pooled_tokens(network.encoder, image, batch.anatomy)
    return float(np.median(check.distances(appearances(batch.image[:, 0].numpy()), tokens)))


def _answer(
    network: TaskModel,
    config: TaskModelConfig,
    chosen: Chosen,
    pictures: list[InputImage],
    network_input: tuple[Batch, Tensor],
    distance: float | None,
) -> Answer:
    kind, evaluation = make_kind(config.task), chosen.evaluation
    batch, image = network_input
    network.eval()
    with torch.inference_mode():
        outputs = network(image, batch.anatomy)
    if not bool(outputs.isfinite().all()):
        raise ValueError(f"{chosen.folder} gives numbers that are not finite: the model is damaged")
    prediction = kind.answer(outputs, evaluation)
    warning = _warning(distance)
    notes = _notes(pictures, evaluation)
    facts = Facts(
        file=pictures[0].file,
        pictures=len(pictures),
        called=prediction.called,
        probabilities=prediction.values,
        calibrated=kind.has_probabilities and evaluation is not None,
        threshold=_threshold(evaluation),
        distance=distance,
        frames=[
            {"frame": one.frame, "region": one.region, **numbers}
            for one, numbers in zip(pictures, prediction.frames, strict=True)
        ],
        notes=warning
        + [note for note in notes if kind.has_probabilities or "temperature" not in note],
    )
    if kind.dense:
        return Answer(facts, _outlined(outputs, pictures))
    drawn = slice(0, _MAX_DRAWN)
    index = torch.full((len(image[drawn]),), prediction.index)
    explained = _explained(
        network, image[drawn], batch.anatomy[drawn], index, pictures[drawn], kind.classes
    )
    return Answer(facts, explained)


def _warning(distance: float | None) -> list[str]:
    # An imported model, or one whose training was killed before its check was written.
    if distance is None:
        return ["WARNING: this model has no input check, so it answers foreign images, too."]
    if verdict_of(distance) is Verdict.USUAL:
        return []
    return [
        f"WARNING: this input is unlike the training images ({distance:.1f} times the limit of "
        "usual ones): another scanner, setting or view, perhaps. The measured figures need not "
        "hold for it."
    ]


def _threshold(evaluation: Metrics | None) -> float | None:
    """The threshold of the last class on the scale of the probabilities that are shown."""
    if evaluation is None or evaluation.threshold is None:
        return None
    raw = np.array([1 - evaluation.threshold, evaluation.threshold])
    temperature = evaluation.temperature
    displayed = raw if temperature is None else with_temperature(raw, temperature)
    return round(float(displayed[1]), 4)


def _notes(pictures: list[InputImage], evaluation: Metrics | None) -> list[str]:
    notes = []
    if evaluation is None:
        return [
            "This model was not evaluated: its score is no probability, and there is no threshold "
            "to call by."
        ]
    if len(pictures) > 1:
        notes.append("The mean of several pictures; the temperature was fitted on single ones.")
    devices = {one.device for one in pictures if one.device} - evaluation.slices["device"].keys()
    if devices:
        notes.append(f"No test image came from {', '.join(sorted(devices))}.")
    if evaluation.synthetic:
        notes.append(f"{_SYNTHETIC}: its figures say nothing about patients.")
    return notes


def _explained(
    network: TaskModel,
    image: Tensor,
    anatomy: Tensor,
    called: Tensor,
    pictures: list[InputImage],
    classes: list[str],
) -> list[list[Panel]]:
    """Each picture, its features' principal components, and which patches speak for the call."""
    maps = patch_maps(network.encoder, image, anatomy)
    colours = principal_colours(maps)
    heat = evidence(network, image, anatomy, called)
    return [
        [
            Panel(_in_form(one.canvas, one), f"frame {one.frame}, region {one.region}"),
            Panel(colour, "principal components"),
            Panel(
                _in_form(one.canvas, one), f"for (red) or against {classes[int(index)]}", heat=warm
            ),
        ]
        for one, colour, warm, index in zip(pictures, colours, heat, called, strict=True)
    ]


def _outlined(outputs: Tensor, pictures: list[InputImage]) -> list[list[Panel]]:
    """The first images with the outline of their mask."""
    drawn = [
        Panel(
            _in_form(one.canvas, one),
            f"frame {one.frame}, region {one.region}",
            outline=_in_form(mask, one) > 0,
        )
        for one, mask in zip(pictures[:_MAX_DRAWN], (outputs[:, 0] > 0).numpy(), strict=False)
    ]
    return [drawn[start : start + 3] for start in range(0, len(drawn), 3)]


def _in_form(canvas: npt.NDArray[Any], image: InputImage) -> Pixels:
    """What the network sees, or a mask of it, in the form that the picture came in."""
    height, width = fit(*image.original_shape, len(canvas))
    return np.asarray(
        cv2.resize(canvas.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
    )


def _print(answers: list[Answer], refused: dict[str, str]) -> None:
    for answer in answers:
        facts = answer.facts
        values = ", ".join(f"{name} {value:.3f}" for name, value in facts.probabilities.items())
        limit = "" if facts.threshold is None else f"; called from {facts.threshold:.3f}"
        print(f"{facts.file}: {facts.called or 'no call'} ({values}{limit})")
        # what a person must not overlook stands on the terminal, too
        for note in facts.notes:
            if note.startswith(_LOUD):
                print(f"  {note}")
    for file, reason in refused.items():
        print(f"{file}: refused: {reason}")
