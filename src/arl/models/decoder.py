"""The light decoder of MAE (He 2022), which pretraining needs for reconstruction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arl.models.block import PlainBlock
from arl.models.positions import sincos_positions


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, p * p * C): patches row by row, pixels row by row, channels last.

    Raises:
        ValueError: the image is not a whole number of patches.
    """
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image of {height} x {width} pixels is not a whole number of patches of {patch_size}"
        )
    grid = images.reshape(
        batch, channels, height // patch_size, patch_size, width // patch_size, patch_size
    )
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # from (B, C, h, p, w, q)


def unpatchify(patches: Tensor, patch_size: int, image_size: Sequence[int]) -> Tensor:
    """The inverse of `patchify`: (B, N, p * p * C) -> (B, C, H, W).

    Raises:
        ValueError: N patches do not make up an image of that size.
    """
    height, width = image_size
    if (
        height % patch_size
        or width % patch_size
        or patches.shape[1] * patch_size**2 != height * width
    ):
        raise ValueError(
            f"{patches.shape[1]} patches of {patch_size} do not make up "
            f"an image of {height} x {width}"
        )
    grid = patches.reshape(
        len(patches), height // patch_size, width // patch_size, patch_size, patch_size, -1
    )
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # from (B, h, w, p, q, C)


class MAEDecoder(nn.Module):
    """Predicts the pixels of patches from the tokens of the visible ones.

    Args:
        embed_dim: width of the encoder.
        decoder_dim: width of the decoder, divisible by 4 and by heads.
        grid_size: patches down and across.
    """

    positions: Tensor

    def __init__(
        self,
        embed_dim: int,
        decoder_dim: int,
        depth: int,
        heads: int,
        patch_size: int,
        in_chans: int,
        grid_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_dim))
        self.register_buffer(
            "positions", sincos_positions(decoder_dim, grid_size), persistent=False
        )
        self.blocks = nn.ModuleList(PlainBlock(decoder_dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.pred = nn.Linear(decoder_dim, patch_size**2 * in_chans)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as MAE does."""
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, as in timm."""
        return {"mask_token"}

    def forward(
        self,
        tokens: Tensor,
        ids_keep: Tensor | None,
        num_patches: int,
        ids_predict: Tensor | None = None,
    ) -> Tensor:
        """Predict the pixels of patches.

        Args:
            tokens: (B, 1 + K, C), the encoder's output.
            ids_keep: (B, K), the patches of the tokens; None: all patches in order.
            num_patches: N of the image.
            ids_predict: (B, M), the patches to predict; None: all.

        Returns:
            (B, M or N, p * p * in_chans).

        Raises:
            ValueError: num_patches is not the decoder's grid, or the number of tokens is not K + 1.
        """
        self._check(tokens, ids_keep, num_patches)
        x = self.embed(tokens)
        patches = x[:, 1:] if ids_keep is None else self._fill(x[:, 1:], ids_keep, num_patches)
        x = torch.cat([x[:, :1], patches + self.positions.to(x.dtype)], dim=1)
        if ids_predict is None:
            ids_predict = torch.arange(num_patches, device=x.device).expand(len(x), -1)
        for block in self.blocks:
            assert isinstance(block, PlainBlock)
            # Only the last block can skip tokens; the CLS token shifts the indices by one.
            x = block.transform(x, 1 + ids_predict if block is self.blocks[-1] else None)
        out: Tensor = self.pred(self.norm(x))
        return out

    def _check(self, tokens: Tensor, ids_keep: Tensor | None, num_patches: int) -> None:
        if num_patches != len(self.positions):
            raise ValueError(
                f"num_patches is {num_patches}, this decoder's grid has {len(self.positions)}"
            )
        kept = num_patches if ids_keep is None else ids_keep.shape[1]
        if tokens.shape[1] != 1 + kept:
            raise ValueError(
                f"{tokens.shape[1]} tokens for {kept} patches: expected one more, the CLS token"
            )

    def _fill(self, kept: Tensor, ids_keep: Tensor, num_patches: int) -> Tensor:
        """Scatter the kept tokens into a grid of mask tokens."""
        batch, _, dim = kept.shape
        # The cast keeps bfloat16 tokens: autocast does not reach a `scatter`.
        full = self.mask_token.to(kept.dtype).expand(batch, num_patches, -1)
        return full.scatter(1, ids_keep.unsqueeze(-1).expand(-1, -1, dim), kept)
