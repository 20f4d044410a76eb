"""The report, in the order in which it is made.

read       the artefacts of a run, each of which may be absent
numbers    what report.json holds: frozen values, every figure an `Estimate`
words      numbers to sentences
page       numbers and sentences to sections of blocks

The vocabulary of every page, the report's and the studies':

sections   what a page is made of
forest     where a forest plot's rows lie
text       how text and numbers look
render     a page as HTML and as Markdown (templates/)
"""
