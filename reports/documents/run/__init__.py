"""A run's document: its sections from the summary, the manifest and the run's columns."""
