"""What server, GPU, host and client series say about a run. Sampling them is `harness.telemetry`'s work."""
