"""Random numbers that are the same on every machine, and the distributions drawn from them.

Times of arrival are in `arrivals`.
"""
