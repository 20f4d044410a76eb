"""Studies: each folder reads runs, makes numbers, words and a page, and is one command."""
