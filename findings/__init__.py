"""The questions of docs/findings.md: which sweeps answer them, what is computed from those, and the page that says so.

`python -m findings` makes everything (see `findings/__main__.py`); `findings/questions/` holds one file a question.
"""
