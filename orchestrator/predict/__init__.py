"""Predictions of a cell: counts, seconds on the links, local work."""
