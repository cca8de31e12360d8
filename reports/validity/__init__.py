"""Whether the measuring can be trusted, one check at a time.

Whether the server is fast enough is judged in `summary` and `verdicts`.
"""
