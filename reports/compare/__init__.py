"""Several runs side by side: ratios, Pareto fronts, what differed. A verdict on a change is in `verdicts`."""
