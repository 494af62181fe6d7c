"""Variables of MATLAB files up to version 7."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy.typing as npt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

# what scipy raises on damaged files, depending on where the damage is
_DAMAGE = (
    MatReadError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_mat(file: Path, variable: str) -> npt.NDArray[Any]:
    """One variable of a .mat file.

    Raises:
        ValueError: it is not a MATLAB file up to version 7, or lacks the variable.
    """
    try:
        content = loadmat(str(file), appendmat=False)
    except NotImplementedError as error:
        raise ValueError(f"{file.name} is a MATLAB 7.3 file, which is not read: save it again with -v7") from error
    except _DAMAGE as error:
        raise ValueError(f"{file.name} is not a readable MATLAB file ({type(error).__name__})") from error
    if variable not in content:
        held = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{file.name} lacks the variable {variable!r}; it has {held}")
    value: npt.NDArray[Any] = content[variable]
    return value
