"""The images of the steps, fixed when a pipeline is compiled."""

import os
import re
from pathlib import Path

TARGETS = ("data", "train", "monitor")
_FILE = "images.env"


def image_of(target: str) -> str:
    """The image of a Dockerfile target.

    The first of these that is there: the variable ARL_IMAGE_<TARGET>, the pattern ARL_IMAGE with
    {target} in it, the file images.env beside the file that ARL_CLUSTER names, and a local tag.
    """
    name = f"ARL_IMAGE_{target.upper()}"
    pattern = os.environ.get("ARL_IMAGE", "")
    return (
        os.environ.get(name)
        or pattern.replace("{target}", target)
        or _recorded_images().get(name)
        or f"arl-{target}:0.2.0"
    )


def is_digest(image: str) -> bool:
    """Whether a reference names the content of an image, which a tag does not."""
    return re.search(r"@sha256:[0-9a-f]{64}$", image) is not None


def _recorded_images() -> dict[str, str]:
    """The lines NAME=IMAGE of images.env, which `make images` writes."""
    folder = os.environ.get("ARL_CLUSTER", "")
    file = Path(folder).parent / _FILE if folder else None
    if file is None or not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
