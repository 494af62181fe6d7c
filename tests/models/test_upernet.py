"""UPerNet on A-ViT."""

import pytest
import torch
from torch import nn

from arl.models.avit import AViT
from arl.models.upernet import Segmenter, four_blocks


def segmenter(depth: int = 5, num_classes: int = 1, channels: int = 11) -> Segmenter:
    encoder = AViT(img_size=35, patch_size=7, embed_dim=12, depth=depth, num_heads=3)
    return Segmenter(encoder, channels=channels, num_classes=num_classes)


@pytest.mark.parametrize("channels", [11, 16, 64])
def test_one_image_in_training_has_enough_values_to_normalise(channels: int) -> None:
    assert segmenter(channels=channels).train()(torch.randn(1, 1, 35, 35)).isfinite().all()


@pytest.mark.parametrize("size", [(35, 35), (14, 49), (7, 7)])
def test_logits_at_the_size_of_the_image(size: tuple[int, int]) -> None:
    assert segmenter()(torch.randn(2, 1, *size), torch.tensor([4, 16])).shape == (2, 1, *size)
    assert segmenter(num_classes=3)(torch.randn(2, 1, *size)).shape == (2, 3, *size)


def test_gradients_reach_the_encoder_and_every_part_of_the_head() -> None:
    model = segmenter()
    model(torch.randn(2, 1, 35, 35), torch.tensor([4, 16])).square().sum().backward()
    silent = [name for name, parameter in model.head.named_parameters() if parameter.grad is None]
    assert not silent
    assert model.encoder.blocks[0].attn.qkv.weight.grad is not None


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = segmenter().train()
    images = torch.randn(3, 1, 35, 35)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)
    assert not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()
    )


def test_features_come_from_the_end_of_each_quarter() -> None:
    assert four_blocks(12) == [2, 5, 8, 11]
    assert four_blocks(4) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="the encoder has 3"):
        segmenter(depth=3)


def test_it_learns_a_disc() -> None:
    """A bright disc on a dark ground, one image, few steps."""
    model = segmenter(depth=4, channels=16)
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    disc = ((row - 12) ** 2 + (column - 16) ** 2 < 64).float().expand(1, 1, -1, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        loss = nn.functional.binary_cross_entropy_with_logits(model(disc), disc)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = model(disc) > 0
    overlap = (predicted & disc.bool()).sum() / (predicted | disc.bool()).sum()
    assert overlap > 0.7
