"""Reads and writes what a run leaves behind: files, pictures, tables, pages. Imports neither torch nor Hydra."""
