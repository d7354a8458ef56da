"""Recorded steps: what a program does to CPU tensors, noted once and replayed without Python objects.

`tracer` notes operations, `lowering` turns them into instructions, `memory` places tensors, `tape` binds and runs them,
`machine` interprets the instructions, with the loops of `rows`.
"""
