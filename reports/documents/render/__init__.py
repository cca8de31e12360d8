"""From a document's model to its media: HTML, Markdown, a terminal; and JUnit for machines.

Nothing here knows what a run, a comparison or a gate is.
"""
