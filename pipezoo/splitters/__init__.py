"""Ways to cut a model, one per file: `split(model, num_stages, example, **knobs)` gives the list of stage modules."""
