"""Encoder and decoder that complete masked images, for the figures of a run."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arl.models.avit import AViT
from arl.models.decoder import MAEDecoder, patchify, unpatchify
from arl.objectives.masking import Masking
from arl.objectives.mim import denormalize_patches, normalize_patches


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and target of the decoder.

    Attributes:
        norm_pix_loss: the target is each patch normalised by its own mean and deviation.
        drop_masked: the encoder sees the visible patches only, and no mask tokens.
    """

    decoder_dim: int
    depth: int
    heads: int
    norm_pix_loss: bool
    drop_masked: bool


def build_decoder(encoder: AViT, config: DecoderConfig) -> MAEDecoder:
    """Build the decoder of an encoder's tokens."""
    return MAEDecoder(
        embed_dim=encoder.embed_dim,
        decoder_dim=config.decoder_dim,
        depth=config.depth,
        heads=config.heads,
        patch_size=encoder.patch_size,
        in_chans=encoder.in_chans,
        grid_size=encoder.grid_size,
    )


class Reconstructor(nn.Module):
    """Completes masked images."""

    def __init__(self, encoder: AViT, decoder: MAEDecoder, config: DecoderConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.config = config

    @torch.no_grad()
    def forward(self, images: Tensor, anatomy: Tensor, masking: Masking) -> Tensor:
        """Replace the masked patches of normalised images (B, C, S, S) by their predictions.

        A decoder of normalised patches gets the true mean and deviation of each patch, as in MAE's
        own figures.
        """
        mask = masking.mask
        ids_keep = masking.ids_keep if self.config.drop_masked else None
        token_mask = mask if ids_keep is None else None
        tokens = self.encoder.forward_features(images, anatomy, ids_keep=ids_keep, mask=token_mask)
        predicted = self.decoder(tokens, ids_keep, mask.shape[1])
        pixels = patchify(images, self.encoder.patch_size)
        if self.config.norm_pix_loss:
            _, mean, std = normalize_patches(pixels)
            predicted = denormalize_patches(predicted, mean, std)
        # Visible patches stay as they are: the decoder is not trained on them.
        whole = torch.where(mask[..., None], predicted, pixels)
        return unpatchify(whole, self.encoder.patch_size, images.shape[-2:])
