"""Recorded steps: a segment of a token is recorded once for its shape and replayed for later tokens."""
