"""Fitting a profile to a log: arrivals, lengths, sessions, sharing; each figure with its interval. See `profile`."""
