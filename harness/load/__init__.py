"""The load phase of a run: the Locust process, events, progress, what stops it early."""
