"""What is watched beside the traffic, on the run's clock: the server's own metrics, the host, the GPUs.

The schemas stand in `reports.rundir.telemetry`, and what follows from the figures is decided in `reports`.
"""
