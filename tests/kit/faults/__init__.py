"""What may go wrong around a run, as tables of data: servers that misbehave, processes and disks that fail.

`tests/bench/bench_faults.py` goes through them all and says what each loses; the quick ones
are tests, in `tests/system/faults`.
"""
