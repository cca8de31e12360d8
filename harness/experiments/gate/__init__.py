"""The gate's experiment: who runs what, in which order, for how long, at what price.

Judging is `reports.verdicts.gate.verdict`.
"""
