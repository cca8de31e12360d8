"""One run over several machines: master, workers, shards, clocks, transfer of records.

A run on one machine needs only `control`.
"""
