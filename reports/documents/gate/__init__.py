"""A gate's documents: its verdict on every medium, earlier verdicts, and the operating curve."""
