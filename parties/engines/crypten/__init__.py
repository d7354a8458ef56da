"""CrypTen 0.4.1 as an engine: stock two-party protocols over our transport and meters, with a separate dealer.

Read in this order: `compat` (imports CrypTen), `engine` (the operations), `functions` (approximations over a model's
range), `communicator` and `provider` (links to the peer and to the dealer), `randomness` (CrypTen's generator,
replaced), `bounds` (declared ranges).
"""
