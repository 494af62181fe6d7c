"""Deformable depthwise sampling of ViT-B against torchvision.ops.deform_conv2d, in one process.

    python benchmarks/deform_sampling.py [--batch 1 32] [--dtype float32 bfloat16] [--repeats 5]
        [--busy 1]

With --busy N the measurement is repeated beside N processes that compute all the time, as in a pod
with a CPU limit; the `_slowdown` fields are our time beside them over our time alone.

Both sides get the same tokens, offsets and kernel and take turns; ratios are of medians.
torchvision has no bfloat16 on a CPU and runs in float32 there, see `peer_dtype`. Prints one JSON
line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from arl.models.sampling import bilinear_corners, deform_depthwise, make_grid

SIDE, DIM, KERNEL = 14, 768, 3
COUNT = KERNEL**2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="busy processes beside the benchmark")
    args = parser.parse_args()
    torch.manual_seed(0)
    results = []
    for batch in args.batch:
        for name in args.dtype:
            result = measure(batch, name, args.repeats)
            if args.busy:
                with busy_processes(args.busy):
                    busy = measure(batch, name, args.repeats)
                result |= {"busy_processes": args.busy} | slowdowns(result, busy)
            results.append(result)
    print(
        json.dumps(
            {"benchmark": "deform_sampling", "threads": torch.get_num_threads(), "results": results}
        )
    )


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that use a core each, for the time of the block."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def slowdowns(alone: dict[str, Any], busy: dict[str, Any]) -> dict[str, object]:
    """Divide our times beside busy processes by those alone."""
    return {
        f"{name}_slowdown": round(busy[f"{name}_ms"][0] / alone[f"{name}_ms"][0], 2)
        for name in ("forward", "forward_backward")
    }


def measure(batch: int, name: str, repeats: int) -> dict[str, Any]:
    dtype = getattr(torch, name)
    tokens, offsets = torch.randn(batch, 1 + SIDE**2, DIM), torch.randn(batch, SIDE**2, 2, COUNT)
    kernel = torch.randn(COUNT, DIM)
    ours = arl_side(tokens.to(dtype), offsets, kernel.to(dtype))
    peer_dtype, theirs = torchvision_side(tokens, offsets, kernel, dtype)
    with torch.no_grad():
        difference = (ours[0]().float() - theirs[0]().float()).abs().max().item()
        forward = medians([ours[0], theirs[0]], repeats)
    forward_backward = medians([ours[1], theirs[1]], repeats)
    return {
        "batch": batch,
        "dtype": name,
        "peer_dtype": peer_dtype,
        "max_difference": difference,
        "forward_ms": [round(1e3 * one, 2) for one in forward],
        "forward_ratio": round(forward[1] / forward[0], 2),
        "forward_backward_ms": [round(1e3 * one, 2) for one in forward_backward],
        "forward_backward_ratio": round(forward_backward[1] / forward_backward[0], 2),
    }


Sides = tuple[Callable[[], Tensor], Callable[[], object]]


def arl_side(tokens: Tensor, offsets: Tensor, kernel: Tensor) -> Sides:
    """Sample tokens from offsets, including the corners; return (forward, forward and backward)."""
    grid = make_grid(SIDE, SIDE, KERNEL, 1, None, tokens.device)
    inputs = [one.clone().requires_grad_() for one in (tokens, offsets, kernel)]

    def forward() -> Tensor:
        x, moved, weight = inputs
        rows, weights = bilinear_corners(moved, grid)
        return deform_depthwise(x, rows, weights.to(x.dtype), weight)[:, 1:]

    return forward, with_backward(forward, inputs, torch.randn_like(tokens[:, 1:]))


def torchvision_side(
    tokens: Tensor, offsets: Tensor, kernel: Tensor, dtype: torch.dtype
) -> tuple[str, Sides]:
    """Sample maps (B, C, H, W) that are prepared outside of the measurement."""
    batch = len(tokens)
    maps = tokens[:, 1:].transpose(1, 2).reshape(batch, DIM, SIDE, SIDE)
    moved = offsets.permute(0, 3, 2, 1).reshape(batch, 2 * COUNT, SIDE, SIDE)
    weight = kernel.t().reshape(DIM, 1, KERNEL, KERNEL)
    if dtype == torch.bfloat16 and not runs(
        maps[:1].to(dtype), moved[:1].to(dtype), weight.to(dtype)
    ):
        dtype = torch.float32
    inputs = [one.to(dtype).contiguous().requires_grad_() for one in (maps, moved, weight)]

    def forward() -> Tensor:
        out: Tensor = deform_conv2d(*inputs, padding=KERNEL // 2)
        return out.flatten(2).transpose(1, 2)

    upstream = torch.randn(batch, SIDE**2, DIM, dtype=dtype)
    return str(dtype).removeprefix("torch."), (forward, with_backward(forward, inputs, upstream))


def runs(maps: Tensor, offsets: Tensor, weight: Tensor) -> bool:
    try:
        deform_conv2d(maps, offsets, weight, padding=KERNEL // 2)
    except (NotImplementedError, RuntimeError):
        return False
    return True


def with_backward(
    forward: Callable[[], Tensor], inputs: list[Tensor], upstream: Tensor
) -> Callable[[], object]:
    return lambda: torch.autograd.grad(forward(), inputs, upstream)


def medians(sides: list[Callable[[], object]], repeats: int) -> list[float]:
    """Measure the seconds of each side in turns, so that a busy machine slows both."""
    for side in sides:
        side()
    times = [[elapsed(side) for side in sides] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def elapsed(side: Callable[[], object]) -> float:
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
