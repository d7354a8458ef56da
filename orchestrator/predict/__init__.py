"""What a cell will take before it runs: counts, seconds on the links, local work."""
