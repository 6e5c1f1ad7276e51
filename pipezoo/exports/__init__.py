"""One file per trainer that a pipeline can go to: ``(spec, **knobs) -> Export``, texts and no files written.

What a trainer cannot take raises ValueError, which says why in one line.
"""
