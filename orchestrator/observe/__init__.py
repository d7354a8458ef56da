"""Watching a run while it lasts, and keeping what was seen: metrics of the driver, time series, the live page."""
