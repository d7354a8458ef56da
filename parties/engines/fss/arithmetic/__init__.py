"""Arithmetic on masked and additive values.

Read in this order: `ring` (Z_2^64 and fixed point), `values` (masked and additive values, local linear work), `opening`
(who opens what), `gates` (opening, truncation, matrix products), `multiplication` (elementwise products), `matrices`
(products with the server's weights), `inputs` and `embedding` (private inputs and the token look-up).
"""
