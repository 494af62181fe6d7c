"""Variables of MATLAB files up to version 7."""

import struct
import warnings
import zlib
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy.typing as npt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

_SECONDS = 600
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


def check_mat(file: Path) -> None:
    """Read a file in a process of its own first: on some damaged ones scipy ends the process.

    Raises:
        ValueError: it does, or takes for ever.
    """
    process = get_context("spawn").Process(target=_try, args=(file,))
    process.start()
    process.join(_SECONDS)
    if process.is_alive():
        process.kill()
        raise ValueError(
            f"{file.name} is a damaged MATLAB file: reading it takes more than {_SECONDS} seconds"
        )
    if process.exitcode != 0:
        raise ValueError(f"{file.name} is a damaged MATLAB file: reading it ends the process")


def _try(file: Path) -> None:
    with suppress(NotImplementedError, *_DAMAGE):  # `read_mat` tells of these
        _variables(file)


def _variables(file: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, of odd headers: what is read is checked
        content: dict[str, Any] = loadmat(str(file), appendmat=False)
    return content


def read_mat(file: Path, variable: str) -> npt.NDArray[Any]:
    """One variable of a .mat file.

    Raises:
        ValueError: it is not a MATLAB file up to version 7, or lacks the variable.
    """
    try:
        content = _variables(file)
    except NotImplementedError as error:
        raise ValueError(
            f"{file.name} is a MATLAB 7.3 file, which is not read: save it again with -v7"
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f"{file.name} is not a readable MATLAB file ({type(error).__name__})"
        ) from error
    if variable not in content:
        held = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{file.name} lacks the variable {variable!r}; it has {held}")
    value: npt.NDArray[Any] = content[variable]
    return value
