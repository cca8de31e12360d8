"""The engine's HTTP face: vLLM's API and metrics over the model."""
