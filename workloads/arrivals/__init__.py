"""Arrival processes: when requests (or sessions) start. See `process` for how the parts fit together."""

from tailgate.workloads.arrivals.process import Arrivals, Process, Superposed

__all__ = ["Arrivals", "Process", "Superposed"]
