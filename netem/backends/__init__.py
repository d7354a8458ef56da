"""The back ends: each takes a `Request` and, while its context is open, has the links as the profile says."""
