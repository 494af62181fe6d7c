"""The reconstructor of a checkpoint folder, for figures; a release leaves it out."""

from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from arl.files import read_json
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.reconstructor import DecoderConfig, Reconstructor, build_decoder
from arl.training.checkpoint import load_encoder, load_strictly, save_model

_WEIGHTS, _CONFIG = "reconstruction.safetensors", "reconstruction.json"


def save_pretrained(
    folder: Path, released: AViT, config: EncoderConfig, *, trained: Reconstructor | None = None
) -> None:
    """Write an encoder and the reconstructor beside it.

    Args:
        released: the encoder of the checkpoint: the teacher, if there is one.
        trained: the decoder with its own encoder, the student; None: no reconstructor.
    """
    if trained is None:
        save_model(folder, released, config)
        return
    parts = {"decoder": trained.decoder}
    # Without a teacher both encoders are the same, which is written only once.
    own = {} if trained.encoder is released else {"encoder": trained.encoder}
    save_model(
        folder,
        released,
        config,
        documents={_CONFIG: asdict(trained.config)},
        beside={_WEIGHTS: nn.ModuleDict({**parts, **own})},
    )


def has_reconstructor(folder: Path) -> bool:
    """Return whether a checkpoint folder has a reconstructor."""
    return (folder / _WEIGHTS).is_file()


def load_reconstructor(folder: Path) -> tuple[Reconstructor, EncoderConfig]:
    """Load the reconstructor of a checkpoint folder, and the encoder's config.

    Raises:
        ValueError: the folder has no decoder, like that of a pretraining without L_MIM or of a
            published encoder, or its weights have another architecture.
    """
    encoder, config = load_encoder(folder)
    if not has_reconstructor(folder) or not isinstance(encoder, AViT):
        raise ValueError(f"{folder} has no decoder: it was not pretrained here with masked images")
    decoder = DecoderConfig(**read_json(folder / _CONFIG))
    weights = load_file(folder / _WEIGHTS)
    model = Reconstructor(encoder, build_decoder(encoder, decoder), decoder)
    if not any(name.startswith("encoder.") for name in weights):
        weights |= {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    load_strictly(model, weights, folder)
    return model, config
