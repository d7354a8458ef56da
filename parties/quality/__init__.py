"""What a cache policy does to a model's answers, in the clear: fidelity to the full cache, tasks with known answers.

Every token that counts is decoded through the compressed cache, the first one too: the prompt is run up to its last
token but one, the policy compresses, and only then does decoding begin.
"""
