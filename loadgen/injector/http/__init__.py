"""Connections, TLS, server-sent events and the compiled fast path: bytes and their time stamps.
What the bytes mean to an API is in `api`.
"""
