"""How the ranks of a pipeline run, one strategy a file."""

from pipezoo.launch.processes import Processes
from pipezoo.launch.virtual import Virtual

__all__ = ["Processes", "Virtual"]
