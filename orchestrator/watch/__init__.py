"""A run as it goes: terminal, live page, Prometheus targets, pushed dashboards."""
