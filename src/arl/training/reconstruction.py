"""What completes masked images, beside the encoder of a checkpoint: for pictures, no part of a release."""

from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from arl.files import read_json
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.reconstructor import DecoderConfig, Reconstructor, build_decoder
from arl.training.checkpoint import load_encoder, load_strictly, save_model

_WEIGHTS, _SIZES = "reconstruction.safetensors", "reconstruction.json"


def save_pretrained(
    folder: Path, released: AViT, config: EncoderConfig, *, trained: Reconstructor | None = None
) -> None:
    """Write an encoder and, beside it, what completes masked images; `trained` has the decoder's own encoder.

    Where that is the one that is released, it is not written twice.
    """
    if trained is None:
        save_model(folder, released, config)
        return
    parts = {"decoder": trained.decoder}
    own = {} if trained.encoder is released else {"encoder": trained.encoder}
    save_model(
        folder,
        released,
        config,
        documents={_SIZES: asdict(trained.config)},
        beside={_WEIGHTS: nn.ModuleDict({**parts, **own})},
    )


def has_reconstructor(folder: Path) -> bool:
    """Whether what completes masked images is beside a checkpoint's encoder."""
    return (folder / _WEIGHTS).is_file()


def load_reconstructor(folder: Path) -> tuple[Reconstructor, EncoderConfig]:
    """What completes masked images, of a checkpoint folder, and the encoder's config.

    Raises:
        ValueError: the folder has no decoder (pretraining without L_MIM has none, nor do published
            encoders), or
            weights of another architecture.
    """
    encoder, config = load_encoder(folder)
    if not has_reconstructor(folder) or not isinstance(encoder, AViT):
        raise ValueError(f"{folder} has no decoder: it was not pretrained here with masked images")
    sizes = DecoderConfig(**read_json(folder / _SIZES))
    weights = load_file(folder / _WEIGHTS)
    model = Reconstructor(encoder, build_decoder(encoder, sizes), sizes)
    if not any(name.startswith("encoder.") for name in weights):
        weights |= {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    load_strictly(model, weights, folder)
    return model, config
