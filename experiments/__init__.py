"""The questions of docs/findings.md: which sweeps answer them, what is computed from those, and the page that says so.

`python -m experiments` makes everything (see `__main__.py`); `experiments/questions/` holds one file a question.
"""
