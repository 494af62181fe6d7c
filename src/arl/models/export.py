"""Export a model as an ONNX graph and compare it with the original."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OPSET = 18
TOLERANCE = 1e-4  # greatest absolute difference
# The graph is traced with the first batch size and compared at both, so that it cannot have fixed
# the batch.
_BATCHES = (2, 3)


def export_onnx(model: nn.Module, size: int, file: Path) -> float:
    """Write `model(image, anatomy)` as an ONNX graph with a free batch size.

    The graph's inputs are `image`, float32 (B, 1, size, size), normalised, and `anatomy`,
    int64 (B,), 0..15, or 16 for none.

    Returns:
        The greatest absolute difference between onnxruntime's output and the model's.

    Raises:
        ValueError: the difference is greater than `TOLERANCE`.
    """
    model.eval()
    examples = [_example(batch, size) for batch in _BATCHES]
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        # The exporter warns of deprecations in its own code.
        warnings.simplefilter("ignore")
        graph = torch.export.export(model, examples[0], dynamic_shapes=({0: batch}, {0: batch}))
        program = torch.onnx.export(
            graph,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image", "anatomy"],
            output_names=["output"],
            external_data=False,
        )
    assert program is not None
    program.save(file)
    worst = max(_difference(model, file, example) for example in examples)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"{file}: onnxruntime differs by {worst:.2g} from the model, more than {TOLERANCE:g}"
        )
    return worst


def _example(batch: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    image = torch.randn(batch, 1, size, size, generator=generator)
    return image, torch.randint(0, 17, (batch,), generator=generator)


def _difference(model: nn.Module, file: Path, example: tuple[Tensor, Tensor]) -> float:
    # Only exports need onnxruntime, whose import takes 0.2 s.
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"image": example[0].numpy(), "anatomy": example[1].numpy()})
    with torch.no_grad():
        expected = model(*example).numpy()
    return float(np.abs(exported - expected).max())
