"""Batched decoding: prompts as token ids in, sampled token ids out.

    from trimtab.sampling import sample

    answers = sample(model, prompts, stop_ids={2}, max_new_tokens=256, temperature=0.7, top_p=0.9, seed=1)

`decoding` runs the model, `batch` is the rows that it runs, `cache` holds their keys and values, `choosing` turns a row
of logits into a token, `noise` gives every prompt its own random stream, `decoding_mode` puts a model under training
aside and back, `layout` lays weights out for decoding, `llama_pass` is a shorter forward pass over weights that lie so.
`remote` asks a server instead.
"""

from trimtab.sampling.choosing import Choice
from trimtab.sampling.decoding import Sampled, sample
from trimtab.sampling.layout import lay_for_decoding

__all__ = ["Choice", "Sampled", "lay_for_decoding", "sample"]
