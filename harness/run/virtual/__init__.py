"""Runs on a virtual clock: a plan served by the embedded engine without HTTP, and recorded as a run is."""
