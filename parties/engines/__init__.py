"""The secure computation behind one small interface; see `parties.engines.base`."""

ENGINES: dict[str, str] = {
    "plain": "float tensors in one process, no security: the reference that private runs are checked against",
    "crypten": "CrypTen 0.4.1, stock two-party protocols with a trusted third party as the dealer",
    "fss": "publicly masked values, function secret sharing, a dealer that streams correlated randomness",
}
"""Name of each engine and what it is, in one line."""
