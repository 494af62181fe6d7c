"""The discriminator of eq. 4."""

import pytest
import torch
from torch import nn

from arl.models.discriminator import PatchDiscriminator


@pytest.mark.parametrize(
    ("patch_size", "context", "side"), [(16, 8, 32), (16, 0, 16), (7, 3, 13), (4, 0, 4)]
)
def test_one_logit_per_patch(patch_size: int, context: int, side: int) -> None:
    model = PatchDiscriminator(patch_size, context, in_chans=3, dim=5)
    assert model(torch.randn(11, 3, side, side)).shape == (11,)
    assert model(torch.randn(0, 3, side, side)).shape == (0,)


def test_a_patch_is_judged_alone() -> None:
    """Nothing passes between the patches of a batch, in training either."""
    model = PatchDiscriminator(16, 4, in_chans=1, dim=7).train()
    patches = torch.randn(5, 1, 24, 24)
    torch.testing.assert_close(model(patches)[2:3], model(patches[2:3]))
    assert not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()
    )


def test_it_tells_speckle_from_blur() -> None:
    model = PatchDiscriminator(8, 4, in_chans=1, dim=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(60):
        sharp = torch.rand(16, 1, 16, 16)
        patches = torch.cat([sharp, nn.functional.avg_pool2d(sharp, 3, 1, 1)])
        labels = torch.cat([torch.ones(16), torch.zeros(16)])
        loss = nn.functional.binary_cross_entropy_with_logits(model(patches), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_patches_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"this discriminator reads \(M, 1, 24, 24\)"):
        PatchDiscriminator(16, 4, in_chans=1, dim=7)(torch.zeros(2, 1, 16, 16))
