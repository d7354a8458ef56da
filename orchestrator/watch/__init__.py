"""Views of a running sweep: terminal, live page, Prometheus targets, regions on the dashboards."""
