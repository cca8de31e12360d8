"""What a run means: from the files of a run directory to figures, verdicts and documents.

It only reads and writes files, so that every figure can be worked out again later, on another machine.
"""
