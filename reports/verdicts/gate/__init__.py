"""The gate: whether the candidate is slower than the baseline, by policy, comparison and thresholds.

Measuring is the work of `harness.experiments.gate`.
"""
