import numpy as np
import pytest
import torch
from torch import nn

from arl.evaluation.maps import (
    evidence,
    offset_fields,
    patch_maps,
    plane,
    principal_colours,
    separation,
)
from arl.models.avit import AViT
from arl.models.heads import Classifier

ANATOMY = torch.tensor([3, 16])


def encoder(conditioning: str = "acdt") -> AViT:
    torch.manual_seed(0)
    made = AViT(
        img_size=32, patch_size=8, embed_dim=20, depth=3, num_heads=5, conditioning=conditioning
    )
    return made.eval()


def images() -> torch.Tensor:
    return torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_evidence_is_the_heads_linearisation_of_the_call() -> None:
    """Without a LayerNorm the head is linear, and the patches' shares are all of the logits'
    difference.
    """
    model = Classifier(encoder(), num_classes=3)
    model.head.norm = nn.Identity()
    nn.init.zeros_(model.head.linear.bias)
    called = torch.tensor([2, 0])
    found = evidence(model, images(), ANATOMY, called)
    with torch.no_grad():
        logits = model(images(), ANATOMY)
    assert found.shape == (2, 4, 4)
    for i, index in enumerate(called.tolist()):
        others = (logits[i].sum() - logits[i, index]) / 2
        assert found[i].sum() == pytest.approx(float(logits[i, index] - others), rel=1e-4)


def test_maps_are_the_patch_tokens_in_their_places() -> None:
    model = encoder()
    maps = patch_maps(model, images(), ANATOMY)
    with torch.no_grad():
        tokens = model(images(), ANATOMY)
    np.testing.assert_allclose(maps[1, 2, 3], tokens[1, 1 + 2 * 4 + 3].numpy(), rtol=1e-5)


def test_colours_follow_the_greatest_direction() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 5, 7, 11)).astype(np.float32)
    maps[0, :, :3, 4] += 50
    colours = principal_colours(maps)
    assert colours.shape == (2, 5, 7, 3)
    assert abs(colours[0, :, :3, 0].mean() - colours[0, :, 3:, 0].mean()) > 0.8
    assert colours.min() >= 0
    assert colours.max() <= 1
    with pytest.raises(ValueError, match="3 patches are too few"):
        principal_colours(maps[:1, :1, :3])


def test_offsets_are_those_of_the_layer_rows_before_columns() -> None:
    model = encoder()
    bias = model.blocks[1].deform.offset.bias
    with torch.no_grad():
        bias.copy_(torch.arange(18.0))  # nine rows, then nine columns
    fields = offset_fields(model, images(), ANATOMY)
    assert fields.shape == (3, 2, 4, 4, 9, 2)
    assert (fields[0] == 0).all()
    np.testing.assert_allclose(
        fields[1, 0, 2, 3], np.stack([np.arange(9), np.arange(9, 18)], axis=1)
    )
    with pytest.raises(ValueError, match="no ACDT blocks"):
        offset_fields(encoder("none"), images(), ANATOMY)


def test_a_plane_keeps_clusters_apart_and_the_silhouette_knows_them() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], 20)
    features = rng.normal(size=(40, 6)) + 9 * (groups == "b")[:, None]
    points = plane(features, seed=0)
    assert points.shape == (40, 2)
    assert separation(features, groups) > 0.7
    assert abs(separation(rng.normal(size=(40, 6)), groups)) < 0.1
    np.testing.assert_array_equal(points, plane(features, seed=0))
    with pytest.raises(ValueError, match="9 images are too few for t-SNE"):
        plane(features[:9], seed=0)
