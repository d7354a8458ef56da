"""Nonlinear functions: table look-ups, softmax, norms, activations."""
