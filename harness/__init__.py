"""Who runs it: targets and their lives, telemetry beside the traffic, the gate, the embedded engine, the commands."""
