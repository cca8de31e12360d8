"""What is kept of each request, and the live figures of the last seconds. Judging them is `reports`' work."""
