"""This machine: its cores and what it was calibrated to measure. Sampling it during a run is in `telemetry`."""
