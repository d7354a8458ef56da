"""The result pages in docs/results/, whose tables `python -m benchmarks.results` writes from the committed records.

A module holds the tables of a page. `python -m benchmarks.results.add` adds the records of a run.
"""
