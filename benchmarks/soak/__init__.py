"""The soak test: sweeps of the real command under seeded fault injection, which must not lose any finished record."""
