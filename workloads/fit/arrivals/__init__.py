"""Fitting arrival processes: gaps, modulation, on and off phases, days.

Lengths and sessions are fitted one folder up.
"""
