"""The files of a run directory: reading, checking, collecting. Figures are worked out in `metrics`."""
