"""Where seconds, bytes and rounds go, and how Prometheus reads them."""
