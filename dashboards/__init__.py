"""What watches a run: the Prometheus configuration; boards come from the registry, `parties.metering.registry`."""
