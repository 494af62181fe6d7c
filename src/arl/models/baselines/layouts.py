"""Tensor names of the published checkpoints, and the settings of each method.

The sources are the authors' own saving and loading code. A rule is a regular expression that is
anchored at the first character. Upstream's `replace("module.", "")` would also change the middle
of a name.
"""

import re
from dataclasses import dataclass

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
META_NC = "CC-BY-NC-4.0"

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """A file format of a method.

    Attributes:
        name: official | timm | Hugging Face | open_clip | big_vision.
        marks: regular expressions; a file has this layout if each matches some name.
        rename: rules that are applied in turn; afterwards the names are timm's.
        ignore: regular expressions of renamed names that are not loaded.
        containers: entries of the file's top level that may hold the tensors.
    """

    name: str
    marks: tuple[str, ...]
    rename: Rules = ()
    ignore: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()

    def new_name(self, name: str) -> str:
        """Return timm's name of a tensor of the file."""
        for pattern, replacement in self.rename:
            match = re.match(pattern, name)
            if match:
                name = match.expand(replacement) + name[match.end() :]
        return name


@dataclass(frozen=True)
class Method:
    """The weights of a method and the inputs that they expect.

    Attributes:
        family: see `encoder.Baseline`.
        normalisation: mean and deviation of the three channels.
        pooling: gap | cls, the features that the authors or the paper classify.
        blur: standard deviation of the Gaussian of the pretraining, pixels; 0: none.
        prefix: tokens before the patches.
        heads: attention heads; 0: one for each 64 channels.
    """

    family: str
    layouts: tuple[Layout, ...]
    licence: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    pooling: str = "gap"
    blur: float = 0.0
    prefix: int = 1
    tanh_gelu: bool = False
    heads: int = 0


_VIT = (
    r"cls_token$",
    r"pos_embed$",
    r"patch_embed\.proj\.weight$",
    r"blocks\.0\.attn\.qkv\.bias$",
    r"norm\.weight$",
)
_MAE_DECODER = (r"mask_token$", r"decoder_(embed|blocks|norm|pred)\.", r"decoder_pos_embed$")
_MAE = Layout("official", _VIT, ignore=(*_MAE_DECODER, r"head\."), containers=("model",))

_MOCO = Layout(
    "official",
    (r"module\.base_encoder\.cls_token$", r"module\.base_encoder\.blocks\.0\.attn\.qkv\.weight$"),
    rename=((r"module\.base_encoder\.", ""),),
    ignore=(r"head\.", r"module\.momentum_encoder\.", r"module\.predictor\."),
    containers=("state_dict",),
)

_BACKBONE: Rules = ((r"module\.", ""), (r"backbone\.", ""))
_TEACHER = tuple(rf"(module\.)?(backbone\.)?{mark}" for mark in _VIT)
_DINO = Layout("official", _TEACHER, rename=_BACKBONE, ignore=(r"head\.",), containers=("teacher",))
_IBOT = Layout(
    "official",
    _TEACHER,
    rename=_BACKBONE,
    ignore=(r"head\.", r"masked_embed$"),
    containers=("state_dict", "teacher"),
)

_DINO_V3 = (
    Layout(
        "official",
        (r"storage_tokens$", r"blocks\.0\.ls1\.gamma$"),
        rename=(
            (r"storage_tokens$", "reg_token"),
            (r"(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2"),
        ),
        ignore=(r"mask_token$", r"rope_embed\.periods$", r"blocks\.\d+\.attn\.qkv\.bias_mask$"),
    ),
    Layout("timm", (r"reg_token$", r"blocks\.0\.gamma_1$")),
    Layout(
        "Hugging Face",
        (r"(\w+\.)?embeddings\.register_tokens$", r"(\w+\.)?layer\.0\.layer_scale1\.lambda1$"),
        rename=(
            (r"(?:\w+\.)?embeddings\.register_tokens$", "reg_token"),
            (r"(?:\w+\.)?embeddings\.(cls_token|mask_token)$", r"\1"),
            (r"(?:\w+\.)?embeddings\.patch_embeddings\.", "patch_embed.proj."),
            (r"(?:\w+\.)?layer\.(\d+)\.", r"blocks.\1."),
            (r"(blocks\.\d+)\.attention\.(?:q_proj|query)\.", r"\1.attn.q."),
            (r"(blocks\.\d+)\.attention\.(?:k_proj|key)\.", r"\1.attn.k."),
            (r"(blocks\.\d+)\.attention\.(?:v_proj|value)\.", r"\1.attn.v."),
            (r"(blocks\.\d+)\.attention\.(?:o_proj|output)\.", r"\1.attn.proj."),
            (r"(blocks\.\d+)\.layer_scale([12])\.lambda1$", r"\1.gamma_\2"),
            (r"(blocks\.\d+)\.mlp\.up_proj\.", r"\1.mlp.fc1."),
            (r"(blocks\.\d+)\.mlp\.down_proj\.", r"\1.mlp.fc2."),
        ),
        ignore=(r"mask_token$", r"(\w+\.)?rope_embeddings\."),
    ),
)

_SIGLIP_VIT = (r"pos_embed$", r"attn_pool\.latent$", r"blocks\.0\.attn\.qkv\.bias$")
_HEAD = (r"attn_pool\.",)
_SIGLIP2 = (
    Layout(
        "Hugging Face",
        (r"vision_model\.embeddings\.position_embedding\.weight$", r"vision_model\.head\.probe$"),
        rename=(
            (r"vision_model\.embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"vision_model\.embeddings\.position_embedding\.weight$", "pos_embed"),
            (r"vision_model\.encoder\.layers\.(\d+)\.", r"blocks.\1."),
            (r"vision_model\.post_layernorm\.", "norm."),
            (r"vision_model\.head\.", "attn_pool."),
            (r"(blocks\.\d+)\.layer_norm([12])\.", r"\1.norm\2."),
            (r"(blocks\.\d+)\.self_attn\.([qkv])_proj\.", r"\1.attn.\2."),
            (r"(blocks\.\d+)\.self_attn\.out_proj\.", r"\1.attn.proj."),
        ),
        ignore=(
            *_HEAD,
            r"text_model\.",
            r"logit_(scale|bias)$",
            r"vision_model\.embeddings\.position_ids$",
        ),
    ),
    Layout(
        "open_clip",
        tuple(rf"visual\.trunk\.{mark}" for mark in _SIGLIP_VIT),
        rename=((r"visual\.trunk\.", ""),),
        ignore=(*_HEAD, r"text\.", r"logit_(scale|bias)$"),
    ),
    Layout("timm", _SIGLIP_VIT, ignore=_HEAD),
    Layout(
        "big_vision",
        (r"params/img/embedding/kernel$", r"params/img/pos_embedding$"),
        rename=(
            (r"params/img/embedding/kernel$", "patch_embed.proj.weight"),
            (r"params/img/embedding/bias$", "patch_embed.proj.bias"),
            (r"params/img/pos_embedding$", "pos_embed"),
            (r"params/img/Transformer/encoder_norm/scale$", "norm.weight"),
            (r"params/img/Transformer/encoder_norm/bias$", "norm.bias"),
            (r"params/img/MAPHead_0/", "attn_pool."),
            (r"params/img/Transformer/encoderblock_(\d+)/", r"blocks.\1."),
            (r"(blocks\.\d+)\.LayerNorm_0/scale$", r"\1.norm1.weight"),
            (r"(blocks\.\d+)\.LayerNorm_0/bias$", r"\1.norm1.bias"),
            (r"(blocks\.\d+)\.LayerNorm_1/scale$", r"\1.norm2.weight"),
            (r"(blocks\.\d+)\.LayerNorm_1/bias$", r"\1.norm2.bias"),
            (
                r"(blocks\.\d+)\.MultiHeadDotProductAttention_0/([qkv])(?:uery|ey|alue)/kernel$",
                r"\1.attn.\2.weight",
            ),
            (
                r"(blocks\.\d+)\.MultiHeadDotProductAttention_0/([qkv])(?:uery|ey|alue)/bias$",
                r"\1.attn.\2.bias",
            ),
            (r"(blocks\.\d+)\.MultiHeadDotProductAttention_0/out/kernel$", r"\1.attn.proj.weight"),
            (r"(blocks\.\d+)\.MultiHeadDotProductAttention_0/out/bias$", r"\1.attn.proj.bias"),
            (r"(blocks\.\d+)\.MlpBlock_0/Dense_0/kernel$", r"\1.mlp.fc1.weight"),
            (r"(blocks\.\d+)\.MlpBlock_0/Dense_0/bias$", r"\1.mlp.fc1.bias"),
            (r"(blocks\.\d+)\.MlpBlock_0/Dense_1/kernel$", r"\1.mlp.fc2.weight"),
            (r"(blocks\.\d+)\.MlpBlock_0/Dense_1/bias$", r"\1.mlp.fc2.bias"),
        ),
        ignore=(*_HEAD, r"params/txt/", r"params/[tb]$", r"params/img/head/"),
    ),
)

_SAM_BLOCK = (
    r"patch_embed\.proj\.weight$",
    r"blocks\.0\.attn\.rel_pos_h$",
    r"blocks\.0\.attn\.rel_pos_w$",
)
_LVM_MED = (
    Layout(
        "official",
        (*_SAM_BLOCK, r"blocks\.0\.mlp\.lin1\.weight$"),
        # timm's own filter renames these only below "image_encoder.".
        rename=((r"(blocks\.\d+)\.mlp\.lin([12])\.", r"\1.mlp.fc\2."),),
        ignore=(r"neck\.",),
    ),
    Layout("timm", (*_SAM_BLOCK, r"blocks\.0\.mlp\.fc1\.weight$"), ignore=(r"neck\.",)),
)

_USFM = Layout(
    "official",
    (
        r"rel_pos_bias\.relative_position_bias_table$",
        r"cls_token$",
        r"blocks\.0\.gamma_1$",
        r"blocks\.0\.attn\.q_bias$",
    ),
    ignore=(
        r"mask_token$",
        r"(lm_)?head\.",
        r"decoder",
        r"fc_norm\.",
        r"rel_pos_bias\.relative_position_index$",
        r"blocks\.\d+\.attn\.relative_position_index$",
    ),
    containers=("model", "state_dict", "module"),
)

METHODS: dict[str, Method] = {
    "mae": Method("vit", (_MAE,), META_NC),
    # MoCo v3 has twelve heads in ViT-S too.
    "moco_v3": Method("vit", (_MOCO,), META_NC, pooling="cls", heads=12),
    "dino": Method("vit", (_DINO,), "Apache-2.0", pooling="cls"),
    "ibot": Method("vit", (_IBOT,), "Apache-2.0", pooling="cls"),
    # The authors trained with the tanh form of GELU; timm's configuration does not say so.
    "siglip2": Method("vit", _SIGLIP2, "Apache-2.0", HALF, prefix=0, tanh_gelu=True),
    "dino_v3": Method("eva", _DINO_V3, "DINOv3 License", pooling="cls", prefix=5),
    "lvm_med": Method(
        "sam", _LVM_MED, "CC-BY-NC-SA-4.0 (its README says CC-BY-NC-ND-2.0)", prefix=0
    ),
    "dmae": Method("vit", (_MAE,), META_NC, blur=1.1),
    "usfm": Method("beit", (_USFM,), META_NC),
    "usf_mae": Method("vit", (_MAE,), "MIT"),
}
