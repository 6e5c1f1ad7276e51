"""Who is told of a training, one tracker a file: ``tracker(folder, config, **knobs)`` gives an object with any of
``step(step, values)`` and ``end(result)``. It lives in a process of its own, which imports its library."""
