"""What watches a run: the Prometheus configuration; boards come with the metric registry of `parties.metrics`."""
