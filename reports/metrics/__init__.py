"""Figures of one run from its columns: latency, throughput, objectives, breakdowns. How sure they are is in `stats`."""
