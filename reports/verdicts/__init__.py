"""Verdicts on whole experiments, one folder for each kind. The runs themselves are made by `harness.experiments`."""
