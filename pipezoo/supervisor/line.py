"""A line between two machines of a run: whole messages over one TCP connection, which notices when a cable is gone.

    frame    4 bytes length of the head | 8 bytes length of the blob | head: JSON | blob: bytes, of files and logs

What arrives is JSON and nothing else: nobody on a network has code run here. A line is used by one thread, never waits
to read, and waits to write no longer than its patience. The kernels of both machines ask each other whether they are
there (TCP keepalive), so that an end whose cable is gone, or whose machine is, hears of it, and one that computes or is
halted by a person is left in peace.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from typing import Any

from pipezoo.errors import RankError

FRAME = struct.Struct("!IQ")
PIECE = 1 << 18  # bytes taken from a socket at once
MOST_HEAD, MOST_BLOB = 1 << 26, 1 << 22  # bytes; a file travels in pieces
MOST_OF_A_STRANGER = 1 << 12  # bytes of a head before the token was shown
PAIRS = "__pairs__"  # a dict whose keys are no strings


class Line:
    """One end.

    Args:
        connection: a connected socket.
        patience: seconds after which an end that does not answer is taken for gone.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        connection.setblocking(False)
        keep_alive(connection, patience)
        self.socket, self.open, self._patience = connection, True, patience
        self.why = ""  # it closed: empty where the other process has ended, else why it is taken for gone
        self._bytes, self._most_head = bytearray(), MOST_OF_A_STRANGER

    def fileno(self) -> int:
        return self.socket.fileno()

    def trust(self) -> None:
        """The other end has shown its token."""
        self._most_head = MOST_HEAD

    def send(self, kind: str, blob: bytes | memoryview = b"", **content: Any) -> bool:
        """Send one message; whether it is on its way. A line that breaks is closed, and raises nothing."""
        head = json.dumps(packed({"kind": kind, **content})).encode()
        return self._write(FRAME.pack(len(head), len(blob)) + head + blob)

    def offer(self, kind: str, **content: Any) -> bool:
        """The same for what nobody misses: dropped where it would have to wait."""
        return bool(self.open and select.select([], [self.socket], [], 0.0)[1] and self.send(kind, **content))

    def messages(self) -> list[dict[str, Any]]:
        """All messages that have arrived whole since the last call; ``open`` turns False at the end."""
        while self.open:
            try:
                piece = self.socket.recv(PIECE)
            except BlockingIOError:
                break
            except OSError as error:
                self._close(_silence(error))
                break
            if not piece:
                self._close("")
                break
            self._bytes += piece
            if len(self._bytes) > MOST_HEAD + MOST_BLOB:
                break
        return self._whole()

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """The messages that arrive within ``seconds``, at least one unless time runs out or the line closes."""
        until = time.monotonic() + seconds
        found = self.messages()
        while not found and self.open and (left := until - time.monotonic()) > 0:
            select.select([self.socket], [], [], left)
            found = self.messages()
        return found

    def close(self) -> None:
        self._close(self.why)

    def _close(self, why: str) -> None:
        if self.open:
            self.open, self.why = False, why
            self.socket.close()

    def _write(self, data: bytes) -> bool:
        left, until = memoryview(data), time.monotonic() + self._patience
        while left and self.open:
            try:
                sent = self.socket.send(left)
                left, until = left[sent:], time.monotonic() + self._patience
            except BlockingIOError:
                if not select.select([], [self.socket], [], max(0.0, until - time.monotonic()))[1]:
                    self._close("it took nothing any more")
            except OSError as error:
                self._close(_silence(error))
        return self.open

    def _whole(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(self._bytes) >= FRAME.size:
            head, blob = FRAME.unpack_from(self._bytes)
            if head > self._most_head or blob > (MOST_BLOB if self._most_head == MOST_HEAD else 0):
                self._close("it sent what is no message")
                break
            begin, end = FRAME.size + head, FRAME.size + head + blob
            if len(self._bytes) < end:
                break
            try:
                message = unpacked(json.loads(self._bytes[FRAME.size : begin]))
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
                self._close("it sent what is no message")
                break
            found.append({**message, "blob": bytes(self._bytes[begin:end])} if blob else message)
            del self._bytes[:end]
        return found


def _silence(error: OSError) -> str:
    """Why nothing comes any more; empty where the other process has ended, of which a reset tells."""
    ended = isinstance(error, (ConnectionResetError, BrokenPipeError))
    return "" if ended else error.strerror or str(error)


def keep_alive(connection: socket.socket, patience: float) -> None:
    """Have the kernel end a connection whose other end has not answered for about ``patience`` seconds."""
    seconds = max(3, int(patience))
    options = {
        "TCP_KEEPIDLE": max(1, seconds // 3),
        "TCP_KEEPALIVE": max(1, seconds // 3),  # macOS' name of the same
        "TCP_KEEPINTVL": max(1, seconds // 3),
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": seconds * 1000,
        "TCP_NODELAY": 1,
    }
    if connection.family == getattr(socket, "AF_UNIX", None):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if (number := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def connect(address: str, port: int, patience: float, token: str, **hello: Any) -> Line:
    """A line to ``address``, whose first message shows the token.

    Raises:
        RankError: nobody answers there.
    """
    try:
        connection = socket.create_connection((address, port), timeout=patience)
    except OSError as error:
        raise RankError(f"rank 0 does not answer at {address} port {port}: {error.strerror or error}") from error
    line = Line(connection, patience)
    line.trust()
    line.send("hello", token=token, **hello)
    return line


def packed(value: Any) -> Any:
    """``value`` in what JSON can hold: a dict with keys that are no strings becomes pairs."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: packed(item) for key, item in value.items()}
        return {PAIRS: [[packed(key), packed(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [packed(item) for item in value]
    return value


def unpacked(value: Any) -> Any:
    """The inverse of :func:`packed`; tuples have become lists."""
    if isinstance(value, dict):
        if value.keys() == {PAIRS}:
            return {unpacked(key): unpacked(item) for key, item in value[PAIRS]}
        return {key: unpacked(item) for key, item in value.items()}
    return [unpacked(item) for item in value] if isinstance(value, list) else value
