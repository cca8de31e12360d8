"""Documents that people read, for the terminal, Markdown, HTML and CI.

Every figure in them was worked out elsewhere.
"""
