"""How requests are sent and timed: Locust decides who and when, the injector sends, stamps and records.

What is sent comes from a plan (`workloads`); what the records mean is worked out in `reports`.
"""
