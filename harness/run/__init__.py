"""One run from its spec to its run directory: checks before it, warm-up, load, what is kept."""
