"""The engine's scheduler, KV cache and step times, on any clock. It serves no request."""
