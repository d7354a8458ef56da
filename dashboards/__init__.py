"""Monitoring of a run: Prometheus configuration, rules, and Grafana boards built from `parties.metering.registry`."""
