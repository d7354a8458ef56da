"""Compiled code: for the CPU by Numba, for a GPU by Triton; both give the same results, bit for bit.

CPU: `loops`, `bit_packing`, and the trees of comparison keys, `bit_trees` and `payload_trees`, over `aes_instructions`.
GPU: `comparison`, `keystream`, `look_ups`, `matrix_products`, over `table_aes`.
"""
