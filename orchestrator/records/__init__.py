"""Records of measurements, the store that holds them, and the snapshot of a run's inputs."""
