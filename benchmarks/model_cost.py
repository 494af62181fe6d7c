"""Parameters, multiply-accumulates and CPU latency of A-ViT-B and timm's ViT-B/16 (Table 10).

    python benchmarks/model_cost.py [--batch 1 8] [--repeats 7]

The models take turns on the same images; ratios are of medians. `folded` is A-ViT after
`fold_anatomy`, as it is deployed. `plain` is our own ViT without conditioning. Offsets and kernels
are random, so that samples fall between tokens. The paper's own latency ratio is 16.6 / 12.1 =
1.37. Prints one JSON line.
"""

import argparse
import json

import torch
from torch import nn

from arl.models.cost import count_macs, count_parameters, latency, paper_models


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    models = paper_models()
    report = {
        "benchmark": "model_cost",
        "threads": torch.get_num_threads(),
        "parameters": {name: count_parameters(models[name]) for name in ("vit", "avit")},
        "macs": {name: count_macs(models[name], (1, 3, 224, 224)) for name in ("vit", "avit")},
        "paper": {
            "parameters": {"vit": 86e6, "avit": 95e6},
            "macs": {"vit": 17.58e9, "avit": 17.66e9},
        },
        "latency": [measured(models, batch, args.repeats) for batch in args.batch],
    }
    print(json.dumps(report))


def measured(models: dict[str, nn.Module], batch: int, repeats: int) -> dict[str, object]:
    times = latency(models, batch, repeats)
    return {
        "batch": batch,
        "ms_per_image": {name: round(1e3 * one / batch, 2) for name, one in times.items()},
        "ratio_to_vit": {name: round(one / times["vit"], 3) for name, one in times.items()},
    }


if __name__ == "__main__":
    main()
