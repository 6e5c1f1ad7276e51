"""``python -m pipezoo.rerun FOLDER``; what it does is in pipezoo/cli/rerun.py."""

import sys

from pipezoo.cli.main import main

if __name__ == "__main__":
    main(["rerun", *sys.argv[1:]])
