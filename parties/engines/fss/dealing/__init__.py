"""The dealer, and how its correlated randomness reaches the parties."""
