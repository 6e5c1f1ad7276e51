"""Libraries that only some models need: imported when one of these is built."""

from __future__ import annotations

import importlib.util
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.foreign_import import import_foreign


def extra(library: str, name: str, model: str) -> Any:
    """The library. Raises ConfigError, which says how to get it, where it is not installed or does not load."""
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"model={model}: needs {library}, which is not installed; valid: pip install 'pipezoo[{name}]'"
        )
    try:
        return import_foreign(library)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigError(f"model={model}: importing {library} failed: {type(error).__name__}: {text}") from error
