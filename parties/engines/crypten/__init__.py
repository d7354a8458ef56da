"""CrypTen 0.4.1 as an engine: stock two-party protocols, our transport, our meters, a dealer of its own."""
