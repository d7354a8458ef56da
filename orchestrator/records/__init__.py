"""What was measured: records, the store that holds them, and what a run was started with."""
