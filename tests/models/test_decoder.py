"""Patches and pixels, and the decoder between tokens and patches."""

import pytest
import torch

from arl.models.decoder import MAEDecoder, patchify, unpatchify
from arl.models.positions import sincos_positions


def test_patches_are_cut_row_by_row_with_channels_last() -> None:
    images = torch.randn(2, 3, 10, 15)
    patches = patchify(images, 5)
    assert patches.shape == (2, 6, 75)
    patch = images[1, :, 5:10, 10:15].permute(1, 2, 0).flatten()  # second row, third column
    torch.testing.assert_close(patches[1, 5], patch)


def test_unpatchify_is_the_inverse() -> None:
    images = torch.randn(2, 3, 21, 35)
    torch.testing.assert_close(unpatchify(patchify(images, 7), 7, (21, 35)), images)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="10 x 12 pixels is not a whole number of patches of 5"):
        patchify(torch.zeros(1, 1, 10, 12), 5)
    with pytest.raises(ValueError, match="6 patches of 5 do not make up an image of 10 x 10"):
        unpatchify(torch.zeros(1, 6, 25), 5, (10, 10))


def test_positions_are_those_of_mae() -> None:
    """One entry by hand: MAE puts the column's waves first, then the row's."""
    positions = sincos_positions(8, (3, 5))
    row, column = 2, 3
    angles = [column, column / 100.0]
    rows = [row, row / 100.0]
    expected = [
        *map(torch.sin, map(torch.tensor, angles)),
        *map(torch.cos, map(torch.tensor, angles)),
    ]
    expected += [
        *map(torch.sin, map(torch.tensor, map(float, rows))),
        *map(torch.cos, map(torch.tensor, map(float, rows))),
    ]
    torch.testing.assert_close(
        positions[row * 5 + column], torch.stack([one.float() for one in expected])
    )


def decoder() -> MAEDecoder:
    return MAEDecoder(
        embed_dim=11, decoder_dim=20, depth=2, heads=5, patch_size=3, in_chans=2, grid_size=(3, 5)
    ).eval()


def test_every_patch_is_predicted() -> None:
    model = decoder()
    ids_keep = torch.stack([torch.randperm(15)[:7] for _ in range(4)])
    assert model(torch.randn(4, 8, 11), ids_keep, 15).shape == (4, 15, 18)
    assert model(torch.randn(4, 16, 11), None, 15).shape == (4, 15, 18)


def test_some_patches_are_predicted_as_all_are() -> None:
    model, tokens = decoder(), torch.randn(4, 16, 11)
    x = model.embed(tokens)
    x = torch.cat([x[:, :1], x[:, 1:] + model.positions], dim=1)
    for block in model.blocks:
        x = block.transform(x)
    torch.testing.assert_close(model(tokens, None, 15), model.pred(model.norm(x[:, 1:])))
    tokens = tokens[:, :8]
    ids_keep, ids_predict = (
        torch.stack([torch.randperm(15)[:count] for _ in range(4)]) for count in (7, 3)
    )
    whole = model(tokens, ids_keep, 15)
    predicted = model(tokens, ids_keep, 15, ids_predict)
    assert predicted.shape == (4, 3, 18)
    index = ids_predict.unsqueeze(-1).expand(-1, -1, 18)
    torch.testing.assert_close(predicted, whole.gather(1, index))


def test_tokens_go_to_their_positions() -> None:
    """All patches in another order give the same prediction; a full sequence needs no order."""
    model, tokens = decoder(), torch.randn(1, 16, 11)
    order = torch.randperm(15)
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    torch.testing.assert_close(model(shuffled, order.unsqueeze(0), 15), model(tokens, None, 15))


def test_masked_patches_hold_the_mask_token() -> None:
    model, ids_keep = decoder(), torch.tensor([[4, 0, 9]])
    before = model(torch.randn(1, 4, 11), ids_keep, 15)
    loss = before[:, 7].sum()
    loss.backward()
    assert model.mask_token.grad is not None
    assert model.mask_token.grad.ne(0).any()


def test_tokens_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_patches is 16, this decoder's grid has 15"):
        decoder()(torch.zeros(1, 17, 11), None, 16)
    with pytest.raises(ValueError, match="15 tokens for 15 patches"):
        decoder()(torch.zeros(1, 15, 11), None, 15)
