"""Batched decoding: prompts as token ids in, sampled token ids out.

    from trimtab.sampling import sample

    answers = sample(model, prompts, stop_ids={2}, max_new_tokens=256, temperature=0.7, top_p=0.9, seed=1)

`decoding` runs the model (batch, window), `cache` holds its keys and values, `choosing` turns one row of logits into
one token, `noise` gives every prompt its own random stream, `standing` puts a model under training into decoding mode
and back, `layout` lays weights out for decoding. `remote` asks a server instead.
"""

from trimtab.sampling.choosing import Choice
from trimtab.sampling.decoding import Sampled, sample
from trimtab.sampling.layout import lay_for_decoding

__all__ = ["Choice", "Sampled", "lay_for_decoding", "sample"]
