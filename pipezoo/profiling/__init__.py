"""What stages and messages cost on this machine, measured alone."""
