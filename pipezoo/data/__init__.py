"""Sources of batches, one per file: `batches(batch_size, seed, **knobs)` gives the function from step to batch."""
