"""The `fss` engine: client and server compute on publicly masked values, a dealer hands out correlated randomness."""
