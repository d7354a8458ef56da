"""Correlated randomness as each party draws or receives it."""
