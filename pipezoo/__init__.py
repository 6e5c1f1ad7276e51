"""The experiment bench of pipeline parallelism in PyTorch."""

import os
import signal
import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"] or os.path.basename("".join(sys.argv[:1])) == "pipezoo":
    # A command is starting, which sets its own handlers when it has imported them: a Ctrl-C before has nothing to tell.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
