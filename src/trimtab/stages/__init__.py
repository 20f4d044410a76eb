"""The pipeline, one page a stage: prepare, reference, train, generate, judge, report.

Each has `main(setup, *, reporter)`, where `setup` is the run as `runtime.set_up` resolved it; it reads its inputs from
the run folder and leaves its artefacts there. Where there is something to foretell, `plan(setup, pairs)` stands beside.
"""
