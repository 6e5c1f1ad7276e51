"""``python -m pipezoo.rerun FOLDER``, the same as ``python -m pipezoo rerun FOLDER``."""
