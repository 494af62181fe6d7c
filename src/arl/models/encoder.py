"""The encoders that heads are put on: A-ViT, and the published ones it is compared with."""

from arl.model_config import EncoderArguments
from arl.models.avit import AViT
from arl.models.baselines.encoder import Baseline

Encoder = AViT | Baseline


def build_encoder(config: EncoderArguments) -> Encoder:
    """The encoder of a model's config, without its weights; a baseline's names its `method`."""
    return Baseline(**config) if "method" in config else AViT(**config)
