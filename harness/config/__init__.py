"""The spec of a run and the command line's own types, validated, and secrets masked.

Workloads have a config of their own.
"""
