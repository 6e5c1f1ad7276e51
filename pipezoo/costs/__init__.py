"""Where costs come from, one source a file: written down, equal for all, read, or measured here."""
