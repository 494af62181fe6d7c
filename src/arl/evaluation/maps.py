"""Where a model looks: components of its tokens, evidence of each patch, offsets of ACDT."""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor

from arl.evaluation.metrics import Floats
from arl.models.acdt import ACDTBlock, DeformableDepthwise
from arl.models.avit import AViT
from arl.models.encoder import Encoder
from arl.models.heads import TaskModel

_SHADES = (1, 99)  # percentiles that become black and full colour


@torch.no_grad()
def patch_maps(encoder: Encoder, image: Tensor, anatomy: Tensor) -> npt.NDArray[np.float32]:
    """Last-layer tokens (B, h, w, C) of images (B, in_chans, S, S) with anatomy indices (B,)."""
    encoder.eval()
    image, anatomy = _beside(encoder, image, anatomy)
    tokens = encoder.forward_features(image, anatomy)[:, encoder.num_prefix_tokens :]
    height, width = (side // encoder.patch_size for side in image.shape[-2:])
    maps = tokens.reshape(len(image), height, width, -1).float().cpu()
    return np.asarray(maps.numpy(), np.float32)


def _beside(module: torch.nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the device of the module, which prediction may have moved to a GPU."""
    device = next(module.parameters()).device
    return tuple(tensor.to(device) for tensor in tensors)


def principal_colours(maps: npt.NDArray[np.float32]) -> Floats:
    """Principal components of tokens (n, h, w, C) as colours (n, h, w, 3) in 0..1, in one basis.

    Raises:
        ValueError: there are fewer than four tokens.
    """
    tokens = maps.reshape(-1, maps.shape[-1]).astype(np.float64)
    if len(tokens) < 4:
        raise ValueError(f"{len(tokens)} patches are too few for three principal components")
    # The full solver: the randomised one gives other colours at each call.
    components = PCA(n_components=3, svd_solver="full").fit_transform(tokens)
    low, high = np.percentile(components, _SHADES, axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray(colours.reshape(*maps.shape[:3], 3))


def evidence(model: TaskModel, image: Tensor, anatomy: Tensor, called: Tensor) -> Floats:
    """What each patch adds to the called class's logit, less the mean of the rest': (B, h, w).

    The head reads the mean of the patches, so that the sum over patches of token x gradient is the
    head's linearisation (Grad-CAM of Selvaraju 2017 at the last layer).

    Args:
        called: class indices (B,).
    """
    model.eval()
    image, anatomy, called = _beside(model, image, anatomy, called)
    with torch.no_grad():
        tokens = model.encoder.forward_features(image, anatomy)
    # The graph begins at the tokens, so the encoder's activations are not kept.
    tokens = tokens.detach().requires_grad_(True)
    logits = model.head(tokens)
    chosen = logits.gather(1, called[:, None])
    # Less the mean of the other classes: what speaks for all classes alike is no evidence.
    others = (logits.sum(1, keepdim=True) - chosen) / (logits.shape[1] - 1)
    (gradient,) = torch.autograd.grad((chosen - others).sum(), tokens)
    height, width = (side // model.encoder.patch_size for side in image.shape[-2:])
    shares = (gradient * tokens.detach()).sum(-1)[:, model.encoder.num_prefix_tokens :]
    return np.asarray(shares.reshape(len(image), height, width).double().cpu().numpy())


@torch.no_grad()
def offset_fields(encoder: AViT, image: Tensor, anatomy: Tensor) -> npt.NDArray[np.float32]:
    """Offsets of the deformable kernels (blocks, B, h, w, K, 2) in patches, rows and columns,
    beyond the regular grid.

    Raises:
        ValueError: the encoder has no ACDT blocks.
    """
    fields: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], offsets: Tensor) -> None:
        fields.append(offsets.float())

    parts = [block.deform for block in encoder.blocks if isinstance(block, ACDTBlock)]
    if not parts:
        raise ValueError("this encoder has no ACDT blocks, so there are no offsets to draw")
    hooks = [
        part.offset.register_forward_hook(keep)
        for part in parts
        if isinstance(part, DeformableDepthwise)
    ]
    try:
        encoder.eval()
        encoder.forward_features(*_beside(encoder, image, anatomy))
    finally:
        for hook in hooks:
            hook.remove()
    height, width = (side // encoder.patch_size for side in image.shape[-2:])
    stacked = torch.stack(fields)  # (blocks, B, L, 2 K), rows first
    shaped = stacked.reshape(len(fields), len(image), height, width, 2, -1).transpose(-1, -2)
    return np.asarray(shaped.cpu().numpy(), np.float32)


def plane(features: npt.ArrayLike, seed: int) -> Floats:
    """t-SNE of features (n, d) on a plane: (n, 2).

    Raises:
        ValueError: fewer than ten.
    """
    points = np.asarray(features, np.float64)
    if len(points) < 10:
        raise ValueError(f"{len(points)} images are too few for t-SNE: it needs 10")
    # scikit-learn refuses a perplexity that is not below the number of points.
    perplexity = min(30.0, (len(points) - 1) / 3)
    embedded = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return np.asarray(embedded, np.float64)


def separation(features: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Silhouette of the groups in the features, -1..1; in t-SNE's plane it would be too high."""
    return float(silhouette_score(np.asarray(features, np.float64), np.asarray(groups)))
