"""A-ViT: the Vision Transformer with anatomy-conditioned blocks (section 3.3).

A-ViT is built from timm's parts, has timm's attribute names and is registered with timm. After
`import arl.models`, `timm.create_model("avit_base_patch16")` builds it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models import register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from arl.corpus.anatomy import NULL_ANATOMY, NUM_ANATOMIES
from arl.models.acdt import ACDTBlock, DeformableDepthwise, extra_parameters
from arl.models.block import AnatomyMLP, PlainBlock, code_table
from arl.models.conditioning import CrossAttentionBlock, FiLMBlock, LoRABlock
from arl.models.positions import sincos_positions
from arl.models.sampling import Grid, make_grid

CONDITIONINGS = ("acdt", "cross_attention", "film", "lora", "none")


class AViT(nn.Module):
    """Encoder of normalised images (B, in_chans, H, W) and anatomy indices (B,).

    Args:
        img_size: side of the square image of the position embeddings, pixels. For other sizes the
            embeddings are resampled.
        conditioning: acdt | cross_attention | film | lora | none.
        deform_kernel: side of the deformable kernel, patches (acdt).
        anatomy_hidden: width of the anatomy MLP of each ACDT block. The other conditionings get as
            many parameters.
        deform_normalize: normalise the sampling of ACDT by the visible patches (`ids_keep`).
        drop_path_rate: probability that stochastic depth skips the last block; it grows linearly
            from zero at the first block.

    Raises:
        ValueError: img_size is not a multiple of patch_size, embed_dim of num_heads, or the
            conditioning is unknown.
    """

    num_prefix_tokens = 1
    num_classes = 0
    anatomy_codes: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 1,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        conditioning: str = "acdt",
        deform_kernel: int = 3,
        anatomy_hidden: int = 240,
        deform_normalize: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_image_size(img_size, img_size, patch_size)
        self.patch_size, self.in_chans, self.embed_dim = patch_size, in_chans, embed_dim
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_features = self.head_hidden_size = embed_dim
        self.deform_kernel = deform_kernel
        self.deform_normalize = deform_normalize
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, strict_img_size=False
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patch_embed.num_patches, embed_dim))
        make = _block_maker(
            conditioning, embed_dim, num_heads, mlp_ratio, deform_kernel, anatomy_hidden
        )
        self.blocks = nn.ModuleList(
            make(drop_path_rate * i / max(1, depth - 1)) for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.register_buffer("anatomy_codes", code_table(NUM_ANATOMIES), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as MAE does; position embeddings start at sines and cosines."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Last, since Xavier has overwritten the zeros with which a conditioning starts.
        for module in self.modules():
            if isinstance(module, (DeformableDepthwise, FiLMBlock, LoRABlock, CrossAttentionBlock)):
                module.reset_conditioning()
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.zeros_(self.patch_embed.proj.bias)
        with torch.no_grad():
            self.pos_embed.zero_()[0, 1:] = sincos_positions(self.embed_dim, self.grid_size)

    def forward(
        self,
        x: Tensor,
        anatomy: Tensor | None = None,
        *,
        ids_keep: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Same as `forward_features`, since the encoder has no head."""
        return self.forward_features(x, anatomy, ids_keep=ids_keep, mask=mask)

    def forward_features(
        self,
        x: Tensor,
        anatomy: Tensor | None = None,
        *,
        ids_keep: Tensor | None = None,
        mask: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """Encode images.

        Args:
            x: (B, in_chans, H, W).
            anatomy: (B,) long, 0..15, or 16 for the null condition; None is the null condition for
                all.
            ids_keep: (B, K) long: encode only these patches, in this order. Sampling (eq. 1) reads
                zero where no token is.
            mask: (B, N) bool: the mask token replaces the patches that are True.
            cls_only: return the CLS token only. The last block then skips the patch tokens, 7 % of
                the multiply-accumulates of ViT-B.

        Returns:
            (B, 1 + L, C): the CLS token, then the patch tokens, normalised; (B, 1, C) if cls_only.

        Raises:
            ValueError: channels, size or an anatomy index do not fit, or the caller passes both
                ids_keep and mask.
        """
        tokens, code, grid = self._embed(x, anatomy, ids_keep, mask)
        for block in self.blocks[:-1]:
            tokens = self._run(block, tokens, code, grid)
        tokens = self._run(
            self.blocks[-1], tokens, code, grid, self.num_prefix_tokens if cls_only else None
        )
        out: Tensor = self.norm(tokens)
        return out

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        anatomy: Tensor | None = None,
    ) -> Any:
        """Compute the features after chosen blocks.

        The arguments and results are those of timm's `VisionTransformer.forward_intermediates`.

        Returns:
            A list of (B, C, h, w), or of (B, L, C) with output_fmt="NLC". With
            return_prefix_tokens each entry is paired with its prefix tokens. Unless
            intermediates_only, the final features (B, 1 + L, C) precede the list.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt {output_fmt!r} is not NCHW or NLC")
        take_indices, last = feature_take_indices(len(self.blocks), indices)
        tokens, code, grid = self._embed(x, anatomy, None, None)
        intermediates = []
        for index, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            tokens = self._run(block, tokens, code, grid)
            if index in take_indices:
                intermediates.append(self.norm(tokens) if norm else tokens)
        features: list[Any] = [tokens_i[:, 1:] for tokens_i in intermediates]
        if output_fmt == "NCHW":
            features = [
                patches.transpose(1, 2).reshape(len(patches), -1, grid.height, grid.width)
                for patches in features
            ]
        if return_prefix_tokens:
            prefixes = [tokens_i[:, :1] for tokens_i in intermediates]
            features = list(zip(features, prefixes, strict=True))
        return features if intermediates_only else (self.norm(tokens), features)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay."""
        # Decay would pull the kernels away from the identity, where they start.
        kernels = {name for name, _ in self.named_parameters() if name.endswith(".deform.weight")}
        return {"pos_embed", "cls_token", "mask_token"} | kernels

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Layers for layer-wise learning rate decay, in timm's format."""
        return {
            "stem": r"^cls_token|mask_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def compile_blocks(self) -> None:
        """Compile each block; all blocks share one graph, so compilation is short."""
        for block in self.blocks:
            block.compile()

    def fold_anatomy(self) -> None:
        """Replace each block's anatomy MLP by a table of its sixteen outputs, for inference.

        The features stay the same, and a forward pass reads 10 % fewer parameters. The weights no
        longer fit a model that is not folded.
        """
        for block in self.blocks:
            if isinstance(block, ACDTBlock) and isinstance(block.anatomy, AnatomyMLP):
                block.anatomy = block.anatomy.folded()

    def _run(
        self,
        block: nn.Module,
        tokens: Tensor,
        code: Tensor,
        grid: Grid,
        num_queries: int | None = None,
    ) -> Tensor:
        out: Tensor
        if self.grad_checkpointing and torch.is_grad_enabled():
            # The re-entrant variant needs an input with a gradient, and a frozen stem gives none.
            out = checkpoint(block, tokens, code, grid, num_queries, use_reentrant=False)
        else:
            out = block(tokens, code, grid, num_queries)
        return out

    def _embed(
        self, x: Tensor, anatomy: Tensor | None, ids_keep: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Grid]:
        height, width = self._check_image(x)
        if ids_keep is not None and mask is not None:
            raise ValueError("ids_keep and mask both hide patches: pass one of them")
        tokens = self.patch_embed(x)
        # Before the positions are added, so that a masked patch keeps its own.
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        positions = self._positions(height, width)
        tokens = tokens + positions[:, 1:]
        # After the positions are added, so that a token carries its own to its new index.
        if ids_keep is not None:
            tokens = tokens.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, self.embed_dim))
        # x.shape[0] and not len(x), which would fix the batch size of an exported graph.
        cls_token = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        grid = make_grid(
            height,
            width,
            self.deform_kernel,
            self.num_prefix_tokens,
            ids_keep,
            x.device,
            normalize=self.deform_normalize,
        )
        return torch.cat([cls_token, tokens], dim=1), self._codes(anatomy, x.shape[0]), grid

    def _check_image(self, x: Tensor) -> tuple[int, int]:
        """Return the number of patches down and across."""
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(
                f"images have shape {tuple(x.shape)}, "
                f"this encoder reads (batch, {self.in_chans}, H, W)"
            )
        height, width = x.shape[-2:]
        check_image_size(height, width, self.patch_size)
        return height // self.patch_size, width // self.patch_size

    def _positions(self, height: int, width: int) -> Tensor:
        if (height, width) == self.grid_size:
            return self.pos_embed
        resampled: Tensor = resample_abs_pos_embed(
            self.pos_embed,
            new_size=[height, width],
            old_size=list(self.grid_size),
            num_prefix_tokens=1,
        )
        return resampled

    def _codes(self, anatomy: Tensor | None, batch: int) -> Tensor:
        if anatomy is None:
            return self.anatomy_codes[NULL_ANATOMY].expand(batch, -1)
        if anatomy.shape != (batch,):
            raise ValueError(
                f"anatomy has shape {tuple(anatomy.shape)}, expected one index per image: "
                f"({batch},)"
            )
        # A GPU's values are checked before they travel there; to read them back is to wait.
        if anatomy.device.type == "cpu" and not torch.compiler.is_compiling():
            check_anatomy(anatomy)
        return self.anatomy_codes[anatomy]


def check_image_size(height: int, width: int, patch_size: int) -> None:
    """Raise ValueError if an image is smaller than a patch or not a whole number of patches."""
    if min(height, width) < patch_size:
        raise ValueError(
            f"image of {height} x {width} pixels is smaller than a patch of {patch_size}"
        )
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image of {height} x {width} pixels is not a whole number of patches of {patch_size}"
        )


def check_anatomy(anatomy: Tensor) -> None:
    """Raise ValueError if one of the indices (B,) is neither an anatomy nor the null condition.

    An index on a GPU is not checked there: a negative one reads another row without an error.
    """
    unknown = sorted(set(anatomy[(anatomy < 0) | (anatomy > NULL_ANATOMY)].tolist()))
    if unknown:
        raise ValueError(
            f"unknown anatomy index {unknown}: "
            f"expected 0..{NULL_ANATOMY - 1}, or {NULL_ANATOMY} for none"
        )


def _block_maker(
    conditioning: str,
    dim: int,
    num_heads: int,
    mlp_ratio: float,
    deform_kernel: int,
    anatomy_hidden: int,
) -> Callable[[float], nn.Module]:
    if conditioning == "none":
        return partial(PlainBlock, dim, num_heads, mlp_ratio)
    if conditioning == "acdt":
        return lambda rate: ACDTBlock(
            dim, num_heads, mlp_ratio, rate, deform_kernel, anatomy_hidden
        )
    budget = extra_parameters(dim, deform_kernel, anatomy_hidden)
    if conditioning == "film":
        return lambda rate: FiLMBlock(dim, num_heads, mlp_ratio, rate, budget)
    if conditioning == "lora":
        return lambda rate: LoRABlock(dim, num_heads, mlp_ratio, rate, budget)
    if conditioning == "cross_attention":
        return lambda rate: CrossAttentionBlock(dim, num_heads, mlp_ratio, rate, budget)
    raise ValueError(
        f"unknown conditioning {conditioning!r}: expected one of {', '.join(CONDITIONINGS)}"
    )


def avit_tiny_patch16(pretrained: bool = False, **kwargs: Any) -> AViT:
    """A-ViT of ViT-Ti/16's width and depth: 6.1 M parameters."""
    return _create(pretrained, {"embed_dim": 192, "num_heads": 3, "anatomy_hidden": 240}, **kwargs)


def avit_small_patch16(pretrained: bool = False, **kwargs: Any) -> AViT:
    """A-ViT of ViT-S/16's width and depth: 24 M parameters."""
    return _create(pretrained, {"embed_dim": 384, "num_heads": 6, "anatomy_hidden": 480}, **kwargs)


def avit_base_patch16(pretrained: bool = False, **kwargs: Any) -> AViT:
    """The paper's A-ViT, of ViT-B/16's width and depth: 95 M parameters (appendix H)."""
    return _create(pretrained, {"embed_dim": 768, "num_heads": 12, "anatomy_hidden": 960}, **kwargs)


def _create(pretrained: bool, defaults: Mapping[str, int], **kwargs: Any) -> AViT:
    if pretrained:
        raise ValueError(
            "timm has no pretrained weights of A-ViT: load a checkpoint, see arl.models.weights"
        )
    if kwargs.pop("num_classes", 0):
        raise ValueError(
            "A-ViT has no head: use arl.models.heads.Classifier, or leave num_classes at 0"
        )
    # `timm.create_model` passes these to every entry point.
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    return AViT(**{**defaults, **kwargs})


for _entrypoint in (avit_tiny_patch16, avit_small_patch16, avit_base_patch16):
    register_model(_entrypoint)
