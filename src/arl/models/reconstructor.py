"""What pretraining leaves behind to draw with: the encoder that was trained with the decoder, and the decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arl.models.avit import AViT
from arl.models.decoder import MAEDecoder, patchify, unpatchify
from arl.objectives.masking import Masking
from arl.objectives.mim import denormalize_patches, normalize_patches


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder, and what it was trained to predict."""

    decoder_dim: int
    depth: int
    heads: int
    norm_pix_loss: bool  # each patch less its own mean, by its own deviation
    drop_masked: bool  # the encoder sees visible patches only, and no mask tokens


def build_decoder(encoder: AViT, config: DecoderConfig) -> MAEDecoder:
    """The decoder for an encoder's tokens."""
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
    """Masked images to whole ones."""

    def __init__(self, encoder: AViT, decoder: MAEDecoder, config: DecoderConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.config = config

    @torch.no_grad()
    def forward(self, images: Tensor, anatomy: Tensor, masking: Masking) -> Tensor:
        """Images (B, C, S, S), normalised as for the encoder, with the masked patches (B, N) as they are predicted.

        A decoder of normalised patches gets the true mean and deviation of each patch, as in MAE's
        own pictures.
        """
        mask = masking.mask
        ids_keep = masking.ids_keep if self.config.drop_masked else None
        shown = mask if ids_keep is None else None  # mask tokens stand for what is hidden
        tokens = self.encoder.forward_features(images, anatomy, ids_keep=ids_keep, mask=shown)
        predicted = self.decoder(tokens, ids_keep, mask.shape[1])
        pixels = patchify(images, self.encoder.patch_size)
        if self.config.norm_pix_loss:
            _, mean, std = normalize_patches(pixels)
            predicted = denormalize_patches(predicted, mean, std)
        whole = torch.where(mask[..., None], predicted, pixels)
        return unpatchify(whole, self.encoder.patch_size, images.shape[-2:])
