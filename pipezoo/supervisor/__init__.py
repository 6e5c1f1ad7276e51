"""Processes that are started, watched and never left behind, whatever they compute."""
