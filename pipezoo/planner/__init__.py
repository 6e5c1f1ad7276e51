"""The planner: which order, on which cut, for these costs and this memory. No torch; numpy and plain Python."""
