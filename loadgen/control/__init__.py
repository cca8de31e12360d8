"""The control plane: a process with Locust in it. It decides who sends and when; it never touches a token."""
