"""The pipeline, one page a stage: prepare, reference, train, generate, judge, report.

Each has `main(config, *, reporter)`, reads its inputs from the run folder and leaves its artefacts there.
"""
