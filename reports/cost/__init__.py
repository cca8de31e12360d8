"""Money and energy for tokens, and the price catalogue."""
