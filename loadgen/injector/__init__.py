"""The data plane: a process of its own that sends, stamps and records. Never imports gevent or Locust."""
