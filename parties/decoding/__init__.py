"""The code that every engine runs: programs, the key-value cache, the decoder."""
