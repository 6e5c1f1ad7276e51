"""What a notebook shows for an object: drawn by ``report``, which lies above everything that can be drawn.

So the drawing is looked up by its name when somebody asks for it, and no module here imports one above it.
"""

from __future__ import annotations

import importlib
from typing import Any

DRAWINGS = "pipezoo.report.display"


def drawn(name: str, *things: Any) -> str:
    """What the function ``name`` of ``report/display.py`` makes of these things."""
    text: str = getattr(importlib.import_module(DRAWINGS), name)(*things)
    return text
