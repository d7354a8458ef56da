"""The operations of the `fss` engine as programs: a family in each module, which `Computation` joins.

`base` has what all of them work with.
"""
