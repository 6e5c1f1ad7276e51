"""Foreign text made safe for a terminal: nothing in a config can move the cursor, recolour or reverse a line."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from typing import TextIO

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # control, format (bidi overrides), surrogate, private, line breaks


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks, through something that understands colours and a moving cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def linked(words: str, path: Path) -> str:
    """``words`` as a link to a file, where a person looks through a terminal (OSC 8; others show the words alone)."""
    if not is_terminal(sys.stdout):
        return words
    return f"\x1b]8;;{path.absolute().as_uri()}\x1b\\{words}\x1b]8;;\x1b\\"


def printable(text: object) -> str:
    """``str(text)`` with every character that is not a plain visible one spelled out, like ``\\x1b`` or ``\\u202e``."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii") if unicodedata.category(character) in _UNSAFE else character
        for character in text
    )
