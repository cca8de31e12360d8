"""One reader for each public trace format, and what they share.

Replaying and rescaling what was read is one folder up.
"""
