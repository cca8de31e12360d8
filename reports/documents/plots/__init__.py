"""Pictures as Plotly figures. What they show is worked out in `metrics`, `compare` and `verdicts`."""
