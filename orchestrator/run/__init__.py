"""The life of a sweep and of a cell: placement, parties as Ray actors, links, failures."""
