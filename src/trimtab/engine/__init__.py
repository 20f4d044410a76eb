"""The engine: the mathematics of a padded, one-sequence-at-a-time computation at a fraction of its cost.

models       weights in and out, LoRA            order       which pairs make up step t
packing      prompt groups in flat rows          optim       AdamW, schedule, clipping
attention    segments inside one row             checkpoint  what a killed run needs
head         log-probs without [tokens, vocab]   reference   the frozen model's log-probs, cached
scoring      packed, padded, the self-check      memory      what it will take
gradient     two phases: numbers, then backward  metrics, evaluation, screening
"""
