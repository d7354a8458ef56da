"""Comparisons of masked values: `signs` is the interface, over `dcf` keys or the prefix tree of `prefix`."""
