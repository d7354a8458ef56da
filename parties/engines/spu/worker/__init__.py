"""The worker process of the `spu` engine: SPU and jax in an environment of their own.

It is run as a script, so its modules import each other without the package. Only `wire` is also imported by the party.
"""
