"""The gate: is the candidate slower than the baseline? Policy, comparison, thresholds, verdict.

Measuring is `harness.experiments.gate`'s work.
"""
