"""What a run means: from the files of a run directory to figures, verdicts and documents.

It sends, samples and starts nothing, so that every figure can be worked out again later from the files alone.
"""
