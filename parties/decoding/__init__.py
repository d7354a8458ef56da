"""What every engine runs: programs, the key-value cache, the decoder."""
