"""How values travel between the ranks of a pipeline, one transport a file."""
