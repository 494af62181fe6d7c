"""Thin KFP components: each is one stage of arl, run in an image that is fixed when a pipeline is compiled.

They import kfp and nothing of arl, so that compiling needs no torch; arl is in the image. They are
lightweight components because only those run unchanged in a subprocess, in a container and on a
cluster.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

# One image for all steps, or one per Dockerfile target where the name says {target}.
IMAGE = os.environ.get("ARL_IMAGE", "arl-{target}:0.1.0")


def step(target: str) -> Callable[..., Any]:
    """A decorator for components that run in the image of a Dockerfile target; nothing is installed at run time."""
    image = IMAGE.replace("{target}", target)
    return functools.partial(
        dsl.component, base_image=image, packages_to_install=[], install_kfp_package=False
    )
