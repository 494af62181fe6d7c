"""Published encoders, built of timm's parts, behind A-ViT's interface.

The encoders take A-ViT's inputs: normalised grey images and an anatomy, which they ignore. They
convert the images to the three channels, the normalisation and the blur of their own training.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import timm
import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

FAMILIES = ("vit", "eva", "beit", "sam")
WINDOW = 14  # side of a window in SAM's windowed blocks, patches


class ViTArguments(TypedDict):
    """Arguments that timm's encoders share."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_classes: int


class Baseline(nn.Module):
    """Encoder of grey images (B, 1, S, S) with A-ViT's normalisation; `net` holds the weights.

    Args:
        method: name of the method, e.g. "mae".
        family: vit (MAE, MoCo v3, DINO, iBOT, SigLIP2, ...), eva (DINO v3), beit (USFM) or sam
            (LVM-Med).
        img_size: side of the only supported image size, pixels.
        grey_mean, grey_std: normalisation of the input images.
        mean, std: normalisation of the pretraining, of three channels in 0..1.
        blur: standard deviation of the Gaussian blur of the pretraining, pixels; 0: none.
        prefix: tokens before the patches: CLS and, in family eva, registers.
        tanh_gelu: the approximate GELU (vit).
        qkv_bias: whether queries and values have a bias (eva).
        final_norm: whether a LayerNorm follows the last block (beit).
        global_blocks: blocks without windows (sam), for more than 14 x 14 patches.

    Raises:
        ValueError: an unknown family, or sizes that do not fit each other.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        method: str,
        family: str,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        grey_mean: float,
        grey_std: float,
        mean: Sequence[float],
        std: Sequence[float],
        blur: float = 0.0,
        prefix: int = 1,
        tanh_gelu: bool = False,
        qkv_bias: bool = True,
        final_norm: bool = True,
        global_blocks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if img_size % patch_size:
            raise ValueError(
                f"image of {img_size} pixels is not a whole number of patches of {patch_size}"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        self.method, self.family = method, family
        self.patch_size, self.in_chans, self.embed_dim = patch_size, 1, embed_dim
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_prefix_tokens = prefix
        common: ViTArguments = {
            "img_size": img_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "num_classes": 0,
        }
        make: dict[str, Callable[[], nn.Module]] = {
            "vit": partial(_vit, common, prefix=prefix, tanh_gelu=tanh_gelu),
            "eva": partial(_eva, common, prefix=prefix, qkv_bias=qkv_bias),
            "beit": partial(_beit, common, final_norm=final_norm),
            "sam": partial(_sam, common, grid=self.grid_size[0], global_blocks=global_blocks),
        }
        if family not in make:
            raise ValueError(
                f"unknown family {family!r} of encoders: expected one of {', '.join(FAMILIES)}"
            )
        self.net: Any = make[family]()
        # One affine map from our normalisation of grey images to that of the pretraining. The
        # buffers are arguments of the encoder, so they do not belong into its weights.
        per_channel = [
            torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std)
        ]
        self.register_buffer("scale", grey_std / per_channel[1], persistent=False)
        self.register_buffer(
            "shift", (grey_mean - per_channel[0]) / per_channel[1], persistent=False
        )
        self.blur = blur

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer blocks."""
        blocks: nn.Sequential = self.net.blocks
        return blocks

    def forward(self, x: Tensor, anatomy: Tensor | None = None) -> Tensor:
        """Same as `forward_features`, since the encoder has no head."""
        return self.forward_features(x, anatomy)

    def forward_features(self, x: Tensor, anatomy: Tensor | None = None) -> Tensor:
        """Grey images (B, 1, S, S) -> normalised tokens (B, prefix + L, C); `anatomy` is ignored.

        Raises:
            ValueError: the images have several channels, or another size than `img_size`.
        """
        # SAM's encoder returns a map (B, C, h, w) and has no CLS token.
        tokens: Tensor = self.net.forward_features(self._inputs(x))
        return tokens.flatten(2).transpose(1, 2) if self.family == "sam" else tokens

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        intermediates_only: bool = False,
        anatomy: Tensor | None = None,
    ) -> Any:
        """Compute maps (B, C, h, w) after chosen blocks, as `AViT.forward_intermediates` does."""
        chosen = list(indices) if isinstance(indices, Sequence) else indices
        return self.net.forward_intermediates(
            self._inputs(x), chosen, norm=norm, intermediates_only=intermediates_only
        )

    def _inputs(self, x: Tensor) -> Tensor:
        side = self.grid_size[0] * self.patch_size
        if x.shape[1:] != (1, side, side):
            raise ValueError(
                f"images have shape {tuple(x.shape)}, {self.method} was imported for "
                f"(batch, 1, {side}, {side}): import it again with another data.size"
            )
        coloured = x * self.scale + self.shift
        return gaussian_blur(coloured, self.blur) if self.blur else coloured


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur images (B, C, H, W) by a Gaussian of `sigma` pixels.

    The kernel ends at four sigma, and the borders are mirrored.
    """
    reach = max(1, round(4 * sigma))
    distance = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-((distance / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(x.shape[1], 1, 1, -1)
    # Two one-dimensional passes: a Gaussian is separable.
    across = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel, groups=x.shape[1])
    return F.conv2d(
        F.pad(across, (0, 0, reach, reach), mode="reflect"), kernel.mT, groups=x.shape[1]
    )


def _vit(common: ViTArguments, *, prefix: int, tanh_gelu: bool) -> nn.Module:
    # SigLIP has no CLS token.
    gelu = partial(nn.GELU, approximate="tanh") if tanh_gelu else nn.GELU
    net: nn.Module = timm.models.VisionTransformer(
        **common, class_token=prefix == 1, global_pool="", act_layer=gelu, norm_layer=_NORM
    )
    return net


def _eva(common: ViTArguments, *, prefix: int, qkv_bias: bool) -> nn.Module:
    """Build DINO v3: rotary positions of base 100, registers, layer scale, LayerNorm eps 1e-5."""
    net: nn.Module = Eva(
        **common,
        global_pool="",
        qkv_bias=qkv_bias,
        init_values=1e-5,
        num_reg_tokens=prefix - 1,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        rope_temperature=100.0,
        rope_rotate_half=True,
        dynamic_img_size=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )
    return net


def _beit(common: ViTArguments, *, final_norm: bool) -> nn.Module:
    """Build BEiT with one table of relative positions for all blocks, as in its pretraining."""
    net: nn.Module = Beit(
        **common,
        global_pool="",
        init_values=0.1,
        use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True,
        use_fc_norm=False,
        norm_layer=_NORM,
    )
    # The file decides: a norm that it does not have would change every feature.
    if not final_norm:
        net.norm = nn.Identity()
    return net


def _sam(common: ViTArguments, *, grid: int, global_blocks: Sequence[int]) -> nn.Module:
    """Build SAM's image encoder without its neck, as LVM-Med classifies.

    Up to 14 x 14 patches the window is the image.
    """
    net: nn.Module = VisionTransformerSAM(
        **common,
        use_abs_pos=False,
        use_rel_pos=True,
        window_size=WINDOW if grid > WINDOW else 0,
        global_attn_indexes=tuple(global_blocks),
        neck_chans=0,
        norm_layer=_NORM,
    )
    net.neck, net.head = nn.Identity(), nn.Identity()
    return net


_NORM = partial(nn.LayerNorm, eps=1e-6)
