"""Which argument an error of foreign code is about; code of pipezoo raises :class:`ArgumentError` itself.

"width=9: must be even"         begins with the argument, as errors of pipezoo do
"Invalid learning rate: -1"     ends with its value, as errors of ``torch.optim`` do
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipezoo.errors import ArgumentError


def argument_of(error: Exception, arguments: Mapping[str, Any]) -> ArgumentError | None:
    """The error as data if its text names exactly one of the ``arguments``, or quotes the value of exactly one."""
    text = " ".join(str(error).split())
    name, found, rest = text.partition("=")
    if found and name in arguments:
        _, _, why = rest.partition(": ")
        return ArgumentError(name, arguments[name], why or rest)
    quoted = [name for name, value in arguments.items() if text.endswith(f": {value}")]
    return ArgumentError(quoted[0], arguments[quoted[0]], text) if len(quoted) == 1 else None
