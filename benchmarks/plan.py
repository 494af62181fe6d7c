"""Predicted against measured seconds of a pretraining step on this CPU.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--steps 8]

`arl plan` predicts from steps of 4 and 12 images; the measured runs have 16. Both count processor
seconds. Prints one JSON line a run and one with the largest error.
"""

import argparse
import json
import resource
from collections.abc import Iterator
from dataclasses import replace

import torch

from arl.composition import compose
from arl.loading.loader import Batch
from arl.loading.transforms import MultiCrop
from arl.models.avit import AViT
from arl.params import Params
from arl.training import engine, optim
from arl.training.plan import measure_step
from arl.training.pretrainer import Pretrainer, PretrainInputs

IMAGES = 16
RUNS = [
    ("avit_micro", "mae", 128),
    ("avit_micro", "arl", 128),
    ("avit_tiny", "mae", 128),
    ("avit_tiny", "arl", 128),
    ("avit_small", "mae", 224),
    ("avit_small", "arl", 224),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    errors = []
    for model, objective, size in RUNS:
        words = [f"model={model}", f"objective={objective}", f"data.size={size}"]
        params = compose([*words, "model.patch_size=16", f"pretrain.batch_size={IMAGES}"])
        step = measure_step(params.model, params.objective, params.pretrain, size=size)
        predicted = step.seconds(IMAGES)
        measured = run(params, size, args.steps)
        errors.append(predicted / measured - 1)
        line = {"predicted": round(predicted, 4), "measured": round(measured, 4)}
        name = {"benchmark": "plan", "model": model, "objective": objective, "size": size}
        print(json.dumps({**name, **line, "error": round(errors[-1], 3)}), flush=True)
    print(json.dumps({"benchmark": "plan", "largest_error": round(max(map(abs, errors)), 3)}))


def run(params: Params, size: int, steps: int) -> float:
    """Seconds of a step of a real training, without its first steps."""
    return (train(params, size, 2 + steps) - train(params, size, 2)) / steps


def train(params: Params, size: int, steps: int) -> float:
    torch.manual_seed(0)
    module = Pretrainer(AViT(img_size=size, **vars(params.model)), params.objective)
    before = resource.getrusage(resource.RUSAGE_SELF)
    engine.fit(
        module,
        optim.parameter_groups(module, weight_decay=0.05),
        lambda start: inputs(params, size, start, steps),
        replace(params.pretrain, checkpoint_every=0),
        steps=steps,
        seed=0,
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def inputs(params: Params, size: int, start: int, steps: int) -> Iterator[PretrainInputs]:
    objective = params.objective
    views = MultiCrop(
        global_size=size,
        local_size=objective.local_crops_size,
        global_crops_scale=objective.global_crops_scale,
        local_crops_scale=objective.local_crops_scale,
        local_crops_number=objective.local_crops_number if objective.self_distillation else 0,
        global_crops_number=objective.global_crops_number,
        seed=0,
    )
    canvas, patches = size + size // 4, (size // params.model.patch_size) ** 2
    batch = Batch(
        torch.randint(0, 256, (IMAGES, 1, canvas, canvas), dtype=torch.uint8),
        torch.full((IMAGES, 2), canvas),
        torch.arange(IMAGES) % 16,
        torch.full((IMAGES,), -1),
        None,
        torch.arange(IMAGES),
    )
    for step in range(start, steps):
        crops = views(batch, step)
        noise = torch.rand(objective.global_crops_number * IMAGES, patches)
        blocks = torch.rand(len(noise), 10, 4)
        yield PretrainInputs(crops.global_crops, crops.local_crops, crops.anatomy, noise, blocks)


if __name__ == "__main__":
    main()
