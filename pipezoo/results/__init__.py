"""The files that a run leaves behind: written whole, read back, and never more than what they say."""
