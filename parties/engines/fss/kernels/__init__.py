"""Compiled code: for the CPU by Numba, for a GPU by Triton; both give the same results, bit for bit.

CPU: `loops`, `table_sums`, and over `aes_instructions` the trees of keys: `bit_trees`, `cell_trees`,
`prefix_trees`, `payload_levels` and `payload_trees`.
GPU: `tape_machine`, `matrix_products`, and over `table_aes` `comparison`, `cells`, `prefixes`, `keystream`; `look_ups`.
"""
