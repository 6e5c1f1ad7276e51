"""Schedules: one pure function a file, ``(num_ranks, num_microbatches, stages_per_rank) -> Schedule``."""
