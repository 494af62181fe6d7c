"""Errors of the surroundings, after which the same command may succeed unchanged."""

import errno

OUTAGE_EXIT = 75  # EX_TEMPFAIL of sysexits.h

_SYSTEM = {
    errno.ENOSPC,
    errno.EDQUOT,
    # A limit on the size of a file (ulimit -f).
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EMFILE,
    errno.ENFILE,
}


def is_outage(error: BaseException) -> bool:
    """Whether an error says that a store, a network, a disk or a credential is not available.

    An error that another one caused is one too, e.g. a `ValueError` raised from a full disk.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError | TimeoutError | PermissionError):
            return True
        if isinstance(seen, OSError) and seen.errno in _SYSTEM:
            return True
        # `raise ... from error` keeps the cause; our readers wrap the OSError of a full disk.
        seen = seen.__cause__
    return False
