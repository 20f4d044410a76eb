"""Batched decoding: prompts as token ids in, sampled token ids out.

    from trimtab.sampling import sample

    answers = sample(model, prompts, stop_ids={2}, max_new_tokens=256, temperature=0.7, top_p=0.9, seed=1)

`decoding` runs the model (batches, KV cache, windows), `choosing` turns one row of logits into one token,
`noise` gives every prompt its own random stream, `standing` puts a model under training into decoding mode and back.
"""

from trimtab.sampling.choosing import Choice
from trimtab.sampling.decoding import Sampled, sample

__all__ = ["Choice", "Sampled", "sample"]
