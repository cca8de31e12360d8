"""Figures as plotly takes them, each with its table; drawn by the page's script, so plotly is never imported here."""
