"""Virtual ranks in the process that asks for them: for a notebook, whose threads and classes no other process has."""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.launch.virtual import Virtual

START_METHOD = "here"  # no process is started


@dataclass(frozen=True)
class ThisProcess(Virtual):
    """Every rank in this process, on one device. Nobody supervises it: an endless loop in the model is endless here."""

    @property
    def start_method(self) -> str:  # type: ignore[override]
        return START_METHOD
