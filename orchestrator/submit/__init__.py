"""Runs on a cluster that only its job address is known of."""
