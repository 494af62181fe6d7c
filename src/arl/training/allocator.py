"""Settings of the C library's memory allocator for a training process."""

import ctypes

# Options of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30  # no tensor of a step is larger
_HEAP_GROWTH = 1 << 26  # bytes


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for new ones; no effect on other platforms."""
    # By default glibc returns blocks beyond 32 MB to the kernel when they are freed, and the kernel
    # fills new ones with zeros, page by page. A step allocates the same tensors as the step before,
    # so this took a tenth of its processor time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size in (
            (_MMAP_THRESHOLD, _KEEP_BYTES),
            (_TRIM_THRESHOLD, _KEEP_BYTES),
            (_TOP_PAD, _HEAP_GROWTH),
        ):
            mallopt(option, size)
