"""`summary.json`: all figures of one run, its objectives and its findings. Laying them out is `documents`' work."""
