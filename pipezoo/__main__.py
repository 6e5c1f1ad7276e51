"""``python -m pipezoo``; what it does is in pipezoo/cli/main.py."""

from pipezoo.cli.main import main

if __name__ == "__main__":
    main()
