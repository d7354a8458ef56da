"""The `fss` engine: client and server compute on publicly masked values, a dealer provides correlated randomness.

`computation.Computation` has the programs, the same at all three parties; `engine.FssEngine` runs them at client and
server, `dealing.dealer.Dealer` at the dealer. Read the rooms in this order: `randomness` (what is dealt), `arithmetic`
(opening, truncation, products), `compare` (signs), `functions` (table look-ups, softmax, norms, activations), `topk`
(maximum and selection), `programs` (the engine's operations, composed of these), `dealing` (the dealer and its
streams), `cost` (exact counts without a run), `kernels` (compiled loops, for the CPU and for a GPU). `bounds` has all
declared ranges.
"""
