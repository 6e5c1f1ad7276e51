"""Running a pipeline for real: stages on ranks, a reference beside them, and processes that are watched."""
