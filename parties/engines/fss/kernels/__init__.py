"""Compiled loops: `loops` for the CPU (Numba); `comparison`, `look_ups`, `matrix_products` for a GPU (Triton)."""
