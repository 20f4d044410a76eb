"""The report's page: sections of blocks from the numbers and sentences. No number is made here.

report          the whole page, and the sections that every report has
judges          win rates, the judge, win rate by difference in length
marks           marks of single answers
answers         families, lengths, samples
training        curves, compute saved, held-out pairs, milestones
data            the audit of the data
"""
