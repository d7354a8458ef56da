"""Compiled code: for the CPU by Numba, for a GPU by Triton and NVRTC; all give the same results, bit for bit.

CPU: `loops`, `table_sums`, and over `aes_instructions` the trees of keys: `bit_trees`, `cell_trees`,
`prefix_trees`, `payload_levels` and `payload_trees`.
GPU: `matrix_products`, and over `table_aes` `comparison`, `few_points`, `cells`, `prefixes`, `keystream`; `look_ups`;
`nvrtc` compiles what `recording.cuda_source` writes, and `driver` is CUDA's.
"""
