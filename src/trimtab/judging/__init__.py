"""Which of two answers is better: benchmarks, judges, verdicts, and readers of verdicts that others made."""
