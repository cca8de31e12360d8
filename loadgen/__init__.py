"""How requests are sent and timed: Locust decides who and when, the injector sends, stamps and records."""
