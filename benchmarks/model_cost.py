"""Parameters, multiply-accumulates and CPU latency of A-ViT-B against timm's ViT-B/16 (the paper's Table 10).

    python benchmarks/model_cost.py [--batch 1 8] [--repeats 7]

The models run in turns on the same images; the ratio is of medians. `folded` is A-ViT after `fold_anatomy`, as it is
deployed; `plain` is our own ViT without conditioning. Offsets and kernels are random, so that samples fall between
tokens. The paper's own latency ratio is 16.6 / 12.1 = 1.37. Prints one JSON line.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

import arl.models  # noqa: F401  registers A-ViT
from arl.models.acdt import DeformableDepthwise
from arl.models.cost import count_macs, count_parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    models = build()
    report = {
        "benchmark": "model_cost",
        "threads": torch.get_num_threads(),
        "parameters": {name: count_parameters(models[name]) for name in ("vit", "avit")},
        "macs": {name: count_macs(models[name], (1, 3, 224, 224)) for name in ("vit", "avit")},
        "paper": {"parameters": {"vit": 86e6, "avit": 95e6}, "macs": {"vit": 17.58e9, "avit": 17.66e9}},
        "latency": [latency(models, batch, args.repeats) for batch in args.batch],
    }
    print(json.dumps(report))


def build() -> dict[str, nn.Module]:
    vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    plain = timm.create_model("avit_base_patch16", in_chans=3, conditioning="none")
    avit = timm.create_model("avit_base_patch16", in_chans=3)
    for module in avit.modules():
        if isinstance(module, DeformableDepthwise):
            nn.init.normal_(module.offset.bias, std=0.7)
            nn.init.normal_(module.weight)
    folded = copy.deepcopy(avit)
    folded.fold_anatomy()
    return {"vit": vit.eval(), "plain": plain.eval(), "avit": avit.eval(), "folded": folded.eval()}


def latency(models: dict[str, nn.Module], batch: int, repeats: int) -> dict[str, object]:
    images, anatomy = torch.randn(batch, 3, 224, 224), torch.arange(batch) % 16
    runs = {name: runner(model, images, anatomy) for name, model in models.items()}
    times = {name: [] for name in runs}
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first is to warm up
                    times[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(one) for name, one in times.items()}
    return {
        "batch": batch,
        "ms_per_image": {name: round(1e3 * one / batch, 2) for name, one in middle.items()},
        "ratio_to_vit": {name: round(one / middle["vit"], 3) for name, one in middle.items()},
    }


def runner(model: nn.Module, images: Tensor, anatomy: Tensor) -> Callable[[], Tensor]:
    if isinstance(model, timm.models.VisionTransformer):
        return lambda: model.forward_features(images)
    return lambda: model(images, anatomy)


if __name__ == "__main__":
    main()
