"""The text or token ids of a request, made from its seed and its lengths. Bodies recorded in a log are in `traces`."""
