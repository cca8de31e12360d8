"""Figures that describe arrivals and shared prefixes, of a plan as well as of a run.

Fitting a law to them is in `fit`.
"""
