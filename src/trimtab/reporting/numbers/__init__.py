"""The numbers of a report, one module a subject. Every figure is an `Estimate`, with its n, interval and method.

report          the whole of report.json
benchmark       what was answered and judged on the benchmark
judges          win rates, raw and length-controlled, and what alignment changed against a published baseline
marks           marks of single answers (MT-Bench)
answers         lengths, true scores, families
training        curves, regime, symptoms, held-out pairs
compute_saved   what screening left out, and the time it is estimated to have saved
samples         which answers are shown side by side
"""
