"""A soak: sweeps driven by the real command while seeded faults strike, and nothing finished may be lost."""
