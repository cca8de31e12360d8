"""Who runs it: targets and their lives, telemetry beside the traffic, experiments, the embedded engine, the commands."""
