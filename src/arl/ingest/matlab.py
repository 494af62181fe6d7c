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
# errors of scipy on damaged files
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
    """Read a file in another process first, because some damaged files make scipy crash.

    Raises:
        ValueError: the process crashes, or exceeds the time limit.
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
    # `read_mat` reports these errors
    with suppress(NotImplementedError, *_DAMAGE):
        _variables(file)


def _variables(file: Path) -> dict[str, npt.NDArray[Any]]:
    with warnings.catch_warnings():
        # scipy warns of unusual headers; the readers check the values
        warnings.simplefilter("ignore")
        content: dict[str, npt.NDArray[Any]] = loadmat(str(file), appendmat=False)
    return content


def read_mat(file: Path, variable: str) -> npt.NDArray[Any]:
    """One variable of a .mat file.

    Raises:
        ValueError: the file is not a MATLAB file up to version 7, or lacks the variable.
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
        names = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{file.name} lacks the variable {variable!r}; it has {names}")
    value: npt.NDArray[Any] = content[variable]
    return value
