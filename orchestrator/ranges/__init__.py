"""Ranges of a model's numbers, measured in the clear, and the bounds that they need."""
