"""What a failing process says of itself."""

from __future__ import annotations

import errno

import pytest

from pipezoo.supervisor.worker import serialize_error


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "part-0.pt"), "OutputError", 6),
        (RuntimeError("DistStoreError: No space left on device"), "OutputError", 6),  # what torch makes of it
        (RuntimeError("[enforce fail at inline_container.cc:659] . Read-only file system"), "OutputError", 6),
        (RuntimeError("epoll_create: Too many open files"), "RuntimeError", 4),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError", 4),
    ],
)
def test_no_room_to_write_is_code_6_in_whose_words_ever(error: Exception, kind: str, code: int) -> None:
    told = serialize_error(error)
    assert (told["type"], told["exit_code"]) == (kind, code)
