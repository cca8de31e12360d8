"""Readers of recorded traces: each turns one format into the same columns, streamed. See `rows`."""
