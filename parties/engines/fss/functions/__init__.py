"""Nonlinear functions.

Read in this order: `tables` (look-ups in public tables), `first_order` (functions by one look-up), `activation` (SiLU,
GELU), `windowed` (functions over many orders of magnitude), `norm` (RMS and layer norm), `softmax`.
"""
