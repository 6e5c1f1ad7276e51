"""How the C library of a rank deals with memory: what is freed stays, and lies on huge pages.

    heap of the process    what was there | room for what a step makes                     |
                                          | 2 MiB a page, filled when it is first touched  |

A step asks for the same tensors again and again. By itself glibc returns them to the system, which fills every page
with zeros anew. And a matrix of a megabyte lies on 256 pages of 4 KiB, which a processor looks up one by one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of mallopt
MALLOC = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 2**25}  # bytes; 32 MiB is all that glibc takes
MALLOC_WORDS = ("MALLOC_", "GLIBC_TUNABLES")  # who sets these in the environment has decided
ROOM = 2**30  # bytes of addresses by which the heap grows at once; no memory before it is touched
PIECE = 2**24  # bytes, below the threshold from which glibc maps what is asked for
DEFAULT_PAD = 2**17
MADV_HUGEPAGE, HUGE_PAGE = 14, 2**21
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step, which asks for it again; and whether it does."""
    if sys.platform != "linux" or any(name.startswith(MALLOC_WORDS) for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)  # musl has none
    if mallopt is None or not all(mallopt(parameter, value) == 1 for parameter, value in MALLOC.items()):
        return False
    use_huge_pages(library)
    return True


def use_huge_pages(library: Any) -> bool:
    """Give the heap room on huge pages, where the system leaves that to its processes; and whether it did."""
    try:
        if "[madvise]" not in HUGE_PAGES.read_text():
            return False
        library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
        start = library.sbrk(0)  # where the heap ends: /proc/self/maps knows it too, and takes a millisecond to write
        _grow(library)
        end = library.sbrk(0)
    except (OSError, AttributeError):
        return False
    if end <= start:  # another allocator has its memory elsewhere
        return False
    start = -(-start // HUGE_PAGE) * HUGE_PAGE
    return bool(library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_HUGEPAGE) == 0)


def _grow(library: Any) -> None:
    """Move the end of the heap once, far: advice holds for what is there, and not for what is added later."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes, before = [ctypes.c_void_p], library.sbrk(0)
    library.mallopt(TOP_PAD, ROOM)
    pieces: list[int | None] = []
    while library.sbrk(0) == before and len(pieces) * PIECE < ROOM:
        pieces.append(library.malloc(PIECE))
    library.mallopt(TOP_PAD, DEFAULT_PAD)
    for piece in pieces:
        library.free(piece)
