"""Measurements by hand: speeds, counts and the soak; none of them is a test."""
