"""A reward model while it trains, and the folder that it becomes.

While it trains it is the causal LM that it began as, with one linear output more, which reads the hidden state of a
response's last token: loading, adapters, packs and checkpoints are those of any run. What is kept of it is what
`AutoModelForSequenceClassification` loads, with an adapter merged in: PEFT saves an adapter without such a head.

Dims: R responses, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trimtab.engine import finite, models, trainable
from trimtab.engine.head import Root, Solve, by_autograd
from trimtab.errors import ModelError
from trimtab.tokenizer_files import save_tokenizer

HEAD = "score_head.safetensors"
GAIN = 10.0
"""Of the head's output: it begins at zero and moves by the rate of weights that are trained already. At 1, a third of a
short run passes before it says anything (LOG.md, 2026-11-29)."""


@dataclass(frozen=True, slots=True)
class ScoreHead:
    """In place of a language model's head: the score of each response, from the state of its last token."""

    module: nn.Linear
    unit_rows: ClassVar[None] = None

    def logps(self, hidden_RH: Tensor, targets_R: Tensor, collisions_R: Tensor | None = None) -> Tensor:  # noqa: ARG002  # as other heads are asked
        """Scores [R] in nats of log-odds, fp32; differentiable when gradients are enabled."""
        assert collisions_R is None, "a score has no vocabulary"
        scores_R: Tensor = GAIN * self.module(hidden_RH.to(self.module.weight.dtype))[:, 0]
        return scores_R

    def gradient(
        self,
        hidden_RH: Tensor,
        targets_R: Tensor,
        *,
        units: Sequence[slice],
        solve: Solve,
        collisions_N: Tensor | None = None,
    ) -> Root:
        """As `Head.gradient`, in one graph with the head's own weights."""
        with torch.enable_grad():
            return by_autograd(self.logps(hidden_RH, targets_R, collisions_N), units, solve)


def attach(model: Any) -> None:
    """Gives a causal LM, with or without an adapter, a head for scores that begins at zero (so does every score); its
    own head learns no more."""
    base = trainable.causal_lm_of(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is not None and head.weight is not embedding.weight:
        head.requires_grad_(False)
    hidden = base.config.get_text_config().hidden_size
    base.score = nn.Linear(hidden, 1, bias=False, device=embedding.weight.device, dtype=torch.float32)
    nn.init.zeros_(base.score.weight)


def module_of(model: Any) -> nn.Linear | None:
    """The head that `attach` made; None where it has not."""
    module: nn.Linear | None = getattr(trainable.causal_lm_of(model), "score", None)
    return module


def save_parts(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes what `assemble` needs into the existing `folder`: the model as any run saves it, and the head."""
    models.save(model, tokenizer, folder)
    module = module_of(model)
    assert module is not None, "a head is attached before anything is trained"
    save_file({"weight": GAIN * module.weight.detach()}, folder / HEAD)


def assemble(parts: Path, into: Path, *, dtype: models.DtypeName, last_id: int, trust_remote_code: bool) -> None:
    """Writes the classifier that `parts` make into the existing folder `into`, an adapter merged into its base.

    `last_id`: the token at which scores are read. It must not pass for padding, which transformers skips.
    """
    bundle = models.load(str(parts), dtype=dtype, device="cpu", trust_remote_code=trust_remote_code, offline=True)
    weight = load_file(parts / HEAD)["weight"]
    finite.refuse([("score.weight", weight)], subject="the reward model's head", remedy="Lower train.learning_rate.")
    classifier = _classifier(bundle.model.config)
    classifier.base_model.load_state_dict(bundle.model.base_model.state_dict(), assign=True)
    classifier.score.weight = nn.Parameter(weight.to(bundle.model.dtype))
    config = classifier.config.get_text_config()
    config.pad_token_id = _padding(config.pad_token_id, bundle.tokenizer, last_id=last_id)
    with models.quiet():
        classifier.save_pretrained(str(into))
        save_tokenizer(bundle.tokenizer, into)


def _classifier(config: Any) -> Any:
    """The family's classifier with one output, without memory for its weights."""
    from transformers import AutoModelForSequenceClassification

    own = deepcopy(config)
    own.num_labels = 1
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(own, trust_remote_code=False)


def require_family(base: Any) -> None:
    """Raises ModelError where transformers has no classifier that a causal LM, still without adapter, could become."""
    name = type(base).__name__
    refusal = f"{name} cannot become a reward model: "
    remedy = "take a model of another family, such as Qwen or Llama"
    try:
        classifier = _classifier(base.config)
    except (ValueError, AttributeError, TypeError, ImportError) as error:
        raise ModelError(f"{refusal}transformers has no sequence classifier of its family", remedy=remedy) from error
    score = getattr(classifier, "score", None)
    is_alike = base.base_model is not base and (
        classifier.base_model.state_dict().keys() == base.base_model.state_dict().keys()
    )
    if not isinstance(score, nn.Linear) or score.bias is not None or not is_alike:
        raise ModelError(f"{refusal}{type(classifier).__name__} is built otherwise", remedy=remedy)


def _padding(configured: int | None, tokenizer: Any, *, last_id: int) -> int | None:
    """A token that pads and ends no text; None where there is none, and then transformers takes one text at a time."""
    candidates = (configured, tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    return next((token for token in candidates if token is not None and token != last_id), None)
