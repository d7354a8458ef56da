"""Experiment files, cells, placement on Ray, the life of a cell, records and their report, the command line."""
