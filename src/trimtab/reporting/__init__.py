"""The parts of a report, in the order in which it is made.

inputs      the artefacts of a run, each of which may be absent
estimates   a number with its n, interval and method, for one seed or several
numbers     win rates, lengths, true scores, families
training    curves, regime, held-out accuracy
saved       what screening left out, and the time it is estimated to have saved
samples     which answers are shown side by side
words       numbers to sentences
page        numbers and sentences to what the page shows: plots, tables
render      the page as HTML and as Markdown (templates/)
text        how text and numbers look
"""
