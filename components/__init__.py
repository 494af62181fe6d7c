"""Thin KFP components: each one calls one stage of arl in an image that is fixed when compiling.

They import kfp and nothing of arl, so that compiling needs no torch; arl is in the image. They are
lightweight components because only these run unchanged in a subprocess, in a container and on a
cluster.
"""

import functools
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.images import image_of


def step(target: str) -> Callable[..., Any]:
    """A decorator for components that run in the image of a Dockerfile target.

    Nothing is installed at run time.
    """
    return functools.partial(
        dsl.component,
        base_image=image_of(target),
        packages_to_install=[],
        install_kfp_package=False,
    )
