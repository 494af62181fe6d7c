"""How the C library hands out memory in a process that trains."""

import ctypes

# of mallopt in glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = 1 << 30  # bytes: no tensor of a step is larger
_GROWTH = 1 << 26  # bytes that the heap grows by at least


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones; elsewhere nothing is changed.

    It gives blocks beyond 32 MB back to the kernel as soon as they are freed, and the kernel fills
    a new one with zeros, page by page. A step allocates the same tensors as the one before, so that
    was a tenth of its processor time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size in (
            (_MMAP_THRESHOLD, _KEPT),
            (_TRIM_THRESHOLD, _KEPT),
            (_TOP_PAD, _GROWTH),
        ):
            mallopt(option, size)
