"""What every package uses and that knows nothing of load testing: errors, units, number formatting, validation.
Anything that knows a workload, a run or a server belongs elsewhere.
"""
