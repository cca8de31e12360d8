"""Arrival processes: when requests (or sessions) start. See `process` for how the parts fit together."""
