"""I/O errors that may be gone at the next try: a network drive that stalls, a busy device."""

import errno

TRANSIENT_REASON = "reading it failed with an I/O error; try it again with --retry-refused"

_TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOTCONN,
        errno.EREMOTEIO,
        errno.EMFILE,
        errno.ENFILE,
    }
)


def is_transient(error: BaseException) -> bool:
    """Whether an error comes from the file system and not from the content of a file.

    Libraries raise `OSError` for damaged files, too, but without an error number.
    """
    return isinstance(error, OSError) and error.errno in _TRANSIENT
