"""Maximum, ranking and selection of the best of many."""
