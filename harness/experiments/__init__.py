"""Campaigns of many runs, one folder for each kind, over one core. Judging them is `reports.verdicts`' work."""
