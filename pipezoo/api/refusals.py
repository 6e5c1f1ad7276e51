"""Arguments of the caller that will not do are ConfigErrors, as every other refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipezoo.errors import ArgumentError, ConfigError


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what refuses an argument inside as a ConfigError that says the same."""
    try:
        yield
    except ArgumentError as error:
        raise ConfigError(str(error), error) from error
