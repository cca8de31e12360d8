"""From a workload to its plan: one row for each request, the same for the same spec and seed.

Sending it is `loadgen`'s work.
"""
