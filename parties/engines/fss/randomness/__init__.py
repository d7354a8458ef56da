"""Correlated randomness, as each party draws or receives it.

Read in this order: `source` (the interface that all protocols use), `party_sources` and `dealer_source` (its two
sides), `frames` (the dealer's stream to a party), `seeds` (how a seed is agreed on), `dcf` and `payload_dcf`
(comparison keys), `constants` (the digest of public constants), `retries` (how many truncation failures chance
explains).
"""
