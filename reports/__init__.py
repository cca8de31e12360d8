"""What a run means: from the files of a run directory to figures, verdicts and documents.

Pure: reads files, writes files. It sends nothing, samples nothing and starts nothing, so that any figure
can be worked out again later, on another machine, from the run directory alone.
"""
