"""Signs of masked values, by either protocol."""
