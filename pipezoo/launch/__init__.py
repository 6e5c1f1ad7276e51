"""How the ranks of a pipeline run, one strategy a file."""
