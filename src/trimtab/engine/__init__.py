"""The engine: the mathematics of a padded, one-sequence-at-a-time computation at a fraction of its cost.

models, quantized     weights in and out, LoRA       order, grouping   which pairs make up step t
packing, trie         what pairs share, in one row   optim       AdamW, schedule, clipping
attention, segments   who sees whom inside one row   checkpoint  what a killed run needs
  segmentwise, blockwise, varlen, flex: the ways     reference   the frozen model's log-probs, cached
head                  log-probs and their gradient   recompute   layers that run again
matmul                fp32 products on CPUs          memory      what it will take
scoring, probe        packed, padded, self-check     metrics, evaluation, describe, identity
gradient              one batch, way by way          screening, shrinking   what is not computed
"""
