"""Checks before a run whether the hosts are suitable; one module per kind of check, see `examine`."""
