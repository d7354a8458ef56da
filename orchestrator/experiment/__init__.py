"""Experiment files, their axes and the cells that they expand to."""
