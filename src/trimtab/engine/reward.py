"""Reward models: a sequence classifier with one output whose logit is the quality of an answer.

What `AutoModelForSequenceClassification` loads with `num_labels = 1` (Skywork-Reward, deberta-reward and their like).
Weights are read from safetensors only, and code that comes with a model is not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trimtab.engine import finite, models
from trimtab.errors import ModelError, NumericsError
from trimtab.records import Message
from trimtab.tokenizer_files import load_tokenizer

BATCH_TOKENS = 8192  # positions of one padded batch


class RewardModel:
    """Scores answers. Make it with `load`."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        config = model.config.get_text_config()
        self.window: int = getattr(config, "max_position_embeddings", None) or 2**31
        self.device = next(model.parameters()).device

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        dtype: models.DtypeName = "auto",
        device: models.DeviceName = "auto",
    ) -> RewardModel:
        """The model in a local folder, in eval mode on its device. Raises ModelError where it is no reward model."""
        from transformers import AutoConfig, AutoModelForSequenceClassification

        place = models.pick_device(device)
        with models.reading(folder):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            _require_reward(config, folder)
            tokenizer = load_tokenizer(str(folder), offline=True)
            model, loading_info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=models.pick_dtype(dtype, place),
                output_loading_info=True,
            )
        if loading_info["missing_keys"]:
            raise ModelError(
                f"{folder}: its weights lack {sorted(loading_info['missing_keys'])[0]}, so it was not trained to score",
                remedy="name a reward model (a sequence classifier with one output)",
            )
        finite.refuse_weights(model, str(folder))
        return cls(model.to(place), tokenizer, name=str(folder))

    def scores(self, conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        """The logit of each conversation, the last message of which is the answer; None where it does not fit in the
        model's window: nothing is cut.

        What a conversation scores does not depend on the batch it stands in, up to rounding. Raises NumericsError,
        naming the place, for a score that is not finite.
        """
        ids = [self._ids(conversation) for conversation in conversations]
        scores: list[float | None] = [None] * len(ids)
        in_window = [place for place, row in enumerate(ids) if len(row) <= self.window]
        for batch in _batches(in_window, ids):
            for place, score in zip(batch, self.score_ids([ids[place] for place in batch]), strict=True):
                if not math.isfinite(score):
                    raise NumericsError(
                        f"{self.name}: the score of answer {place + 1} of {len(ids)} is {score}",
                        remedy="load the reward model in float32, or use another one",
                    )
                scores[place] = score
        return scores

    def _ids(self, conversation: Sequence[Message]) -> list[int]:
        """By the model's chat template, which has its special tokens; else as a pair of texts, as for encoders."""
        if self.tokenizer.chat_template is not None:
            messages = [message.to_json() for message in conversation]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        *before, answer = conversation
        return list(self.tokenizer("\n\n".join(message.content for message in before), answer.content).input_ids)

    @torch.inference_mode()
    def score_ids(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logit of each row of ids, in one batch.

        A decoder's classifier reads the last token that is not padding: padding must be no token of a text.
        """
        config = self.model.config.get_text_config()
        configured_pad = config.pad_token_id
        pad = configured_pad if configured_pad is not None else _pad_id(rows, below=config.vocab_size)
        width = max(len(row) for row in rows)
        ids_RT = torch.full((len(rows), width), pad, dtype=torch.long)
        mask_RT = torch.zeros_like(ids_RT)
        for place, row in enumerate(rows):
            ids_RT[place, : len(row)] = torch.tensor(list(row))
            mask_RT[place, : len(row)] = 1
        config.pad_token_id = pad
        try:
            logits = self.model(input_ids=ids_RT.to(self.device), attention_mask=mask_RT.to(self.device)).logits
        finally:
            config.pad_token_id = configured_pad
        return [float(score) for score in logits.float().reshape(len(rows)).tolist()]


def _require_reward(config: Any, folder: Path) -> None:
    if config.num_labels != 1:
        raise ModelError(
            f"{folder} gives {config.num_labels} scores, where a reward model gives one",
            remedy="name a reward model (a sequence classifier with num_labels = 1)",
        )


def _batches(places: Sequence[int], ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Longest first, so that what does not fit in memory is found out at once."""
    batches: list[list[int]] = []
    width = 0
    for place in sorted(places, key=lambda place: len(ids[place]), reverse=True):
        if not batches or width * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
            width = len(ids[place])
        batches[-1].append(place)
    return batches


def _pad_id(rows: Sequence[Sequence[int]], *, below: int) -> int:
    used = {token for row in rows for token in row}
    return next(token for token in range(below - 1, -1, -1) if token not in used)
