"""The same steps on a GPU: `make gpu-test` runs this file on a machine that has one.

The file needs no network and no data. It prints one JSON line: images per second, peak memory,
parity with the CPU, and the precision that the encoder's products have inside of DeepSpeed.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from arl.composition import compose
from arl.loading.loader import Batch
from arl.models.avit import AViT
from arl.models.heads import Pooled
from arl.training import distributed, engine, optim
from arl.training.pretrainer import Pretrainer, PretrainInputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
]
SIZE, PATCHES, STEPS = 224, 196, 3
MEASURED: dict[str, object] = {}


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, **MEASURED}))


def parts(model: str, batch: int, precision: str):
    words = ["experiment=paper", f"model={model}", "objective.prototypes=4096"]
    params = compose([*words, f"pretrain.batch_size={batch}", f"pretrain.precision={precision}"])
    torch.manual_seed(0)
    encoder = AViT(img_size=SIZE, **vars(params.model))
    return Pretrainer(encoder, params.objective), params


def inputs(params, batch: int, steps: int, start: int) -> Iterator[PretrainInputs]:
    views = params.objective.global_crops_number
    count, side = params.objective.local_crops_number, params.objective.local_crops_size
    for step in range(start, steps):
        random = torch.Generator().manual_seed(step)
        yield PretrainInputs(
            global_crops=torch.randn(views * batch, 1, SIZE, SIZE, generator=random),
            local_crops=torch.randn(count * batch, 1, side, side, generator=random),
            anatomy=torch.arange(batch) % 16,
            noise=torch.rand(views * batch, PATCHES, generator=random),
            block_noise=torch.rand(views * batch, 10, 4, generator=random),
        )


def train(model: str, batch: int, precision: str, steps: int) -> list[dict[str, float]]:
    module, params = parts(model, batch, precision)
    return engine.fit(
        module,
        optim.parameter_groups(module, weight_decay=0.05),
        lambda start: inputs(params, batch, steps, start),
        replace(params.pretrain, checkpoint_every=0, zero_stage=0),
        steps=steps,
        seed=0,
    )


def cpu_losses(model: str, batch: int) -> list[float]:
    """The loss of the first forward pass; later ones depend on rounding in the optimiser."""
    module, params = parts(model, batch, "fp32")
    return [float(module(next(inputs(params, batch, 1, 0)), 0.0)["loss"])]


def test_the_first_loss_is_that_of_the_cpu() -> None:
    torch.set_float32_matmul_precision("highest")
    try:
        on_gpu = train("avit_tiny", 4, "fp32", 1)[0]["loss"]
    finally:
        torch.set_float32_matmul_precision("high")
    on_cpu = cpu_losses("avit_tiny", 4)[0]
    MEASURED["parity"] = {"cpu": on_cpu, "gpu": on_gpu}
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


def test_products_are_in_bfloat16_inside_of_deepspeed() -> None:
    module, params = parts("avit_tiny", 4, "bf16")
    dtypes: set[torch.dtype] = set()
    module.encoder.blocks[0].mlp.fc1.register_forward_hook(
        lambda _, __, product: dtypes.add(product.dtype)
    )
    engine.fit(
        module,
        optim.parameter_groups(module, weight_decay=0.05),
        lambda start: inputs(params, 4, 1, start),
        replace(params.pretrain, checkpoint_every=0, zero_stage=2),
        steps=1,
        seed=0,
    )
    MEASURED["precision_inside"] = sorted(str(dtype) for dtype in dtypes)
    assert dtypes == {torch.bfloat16}


def test_throughput_and_memory() -> None:
    torch.cuda.reset_peak_memory_stats()
    train("avit_base", 32, "bf16", 2)
    torch.cuda.synchronize()
    start = time.perf_counter()
    steps = 10
    history = train("avit_base", 32, "bf16", steps)
    torch.cuda.synchronize()
    MEASURED["images_per_second"] = round(32 * steps / (time.perf_counter() - start), 1)
    MEASURED["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    assert all(record["skipped"] == 0 for record in history)


def test_collectives_and_prediction_stay_on_the_gpu() -> None:
    assert distributed.collective_device().type == "cuda"
    assert distributed.mean_over_ranks({"one": torch.ones(()), "two": 2.0}) == {"one": 1, "two": 2}
    encoder = AViT(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    image = torch.randint(0, 256, (2, 1, 40, 40), dtype=torch.uint8)
    batch = Batch(
        image,
        torch.full((2, 2), 40),
        torch.zeros(2).long(),
        torch.zeros(2).long(),
        None,
        torch.arange(2),
    )
    model = Pooled(encoder, "gap")
    outputs: list[Tensor] = [output for _, output in engine.predict(model, [batch], size=32)]
    assert next(model.parameters()).device.type == "cuda"
    assert outputs[0].device.type == "cpu"
