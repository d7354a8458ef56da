"""The back ends. Each takes a `Request` and shapes the links according to the profile while its context is open."""
