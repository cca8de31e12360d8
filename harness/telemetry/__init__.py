"""What is watched beside the traffic: the server's own metrics, the host, the GPUs; all on the run's clock.

`server` scrapes `/metrics`, `host` asks psutil, `tidy` keeps the samples and writes them. The schemas are
`reports.rundir.telemetry`'s; what follows from the figures is decided there and never here.
"""
