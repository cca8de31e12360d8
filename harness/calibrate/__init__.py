"""What this machine can measure honestly: our own load against a server whose schedule is known to the microsecond."""
