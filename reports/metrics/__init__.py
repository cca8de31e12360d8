"""Figures of one run from its columns: latency, throughput, objectives, breakdowns. Intervals come from `stats`."""
