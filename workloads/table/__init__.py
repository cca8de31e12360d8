"""The columns of a plan: their types, their hashes and the most rows they may have.

What stands in them is made in `plan`.
"""
