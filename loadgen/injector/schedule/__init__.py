"""Which request is due next: open loop, closed loop, or a locustfile's. Sending it is `dispatcher`'s work."""
