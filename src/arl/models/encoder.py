"""The encoders that carry heads: A-ViT, and the published encoders of the comparison."""

from arl.model_config import EncoderArguments
from arl.models.avit import AViT
from arl.models.baselines.encoder import Baseline

Encoder = AViT | Baseline


def build_encoder(config: EncoderArguments) -> Encoder:
    """Build an encoder without its weights; the arguments of a baseline name its `method`."""
    return Baseline(**config) if "method" in config else AViT(**config)
