"""Maximum and top-k selection.

Read in this order: `maximum` (maximum, argmax, comparisons of all pairs), `ranking` (the ranking of shuffled values, in
the open), `sample_sizes` and `pivots` (the same with fewer comparisons), `selection` (shuffle, top-k, one-hot rows,
compaction), `kept_rows` (eviction).
"""
