"""What a run does, one page a task."""
