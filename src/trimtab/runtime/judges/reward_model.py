"""A local reward model as a judge; its scores are kept in the verdict store of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import expit

from trimtab.config import Config
from trimtab.engine import identity
from trimtab.judging.judges import Comparison
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.runtime.signals import Stop

Text = tuple[str, str]  # an instruction and an answer to it
AT_ONCE = 64  # answers that are scored before they are kept


class RewardJudge:
    """A local reward model: preference 1 + σ(score of the model's answer − score of the baseline's).

    Bradley and Terry's probability, with the scores as the model was trained to give them. It has no order of answers.
    """

    def __init__(self, config: Config, cache: VerdictCache, *, reporter: Reporter, stop: Stop) -> None:
        self.config, self.cache, self.reporter, self.stop = config, cache, reporter, stop
        self.folder = identity.folder_of(config.judge.model, revision=None, offline=config.offline)
        self.weights = identity.identify(str(self.folder)).weights
        self.name = f"{config.judge.name}@{self.weights[:8]}"
        self.n_scored = self.n_kept = 0  # answers
        self.n_too_long = 0  # comparisons

    def preferences(self, asked: Sequence[Comparison], /) -> list[float | None]:
        """One preference for every comparison."""
        texts_of = {(one.instruction, text) for one in asked for text in (one.baseline, one.model)}
        scores = self._scores(sorted(texts_of))
        pairs = [(scores[one.instruction, one.baseline], scores[one.instruction, one.model]) for one in asked]
        self.n_too_long += sum(None in pair for pair in pairs)
        return [None if old is None or new is None else 1 + float(expit(new - old)) for old, new in pairs]

    def about(self) -> dict[str, Any]:
        """Counts are of answers scored and of scores kept from before."""
        return {
            "model": self.config.judge.model,
            "base_url": None,
            "n_asked": self.n_scored,
            "n_cached": self.n_kept,
            "n_failed": self.n_too_long,
            "reasons": f"too long for the reward model: {self.n_too_long}" if self.n_too_long else "",
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "cost_usd": 0.0,
            "notes": [],
        }

    def _scores(self, wanted: Sequence[Text]) -> dict[Text, float | None]:
        keys = {one: digest(["reward", self.weights, *one]) for one in wanted}
        kept = self.cache.get(list(keys.values()))
        missing = [one for one in wanted if keys[one] not in kept]
        found: dict[Text, float | None] = {one: kept[key].value for one, key in keys.items() if key in kept}
        self.n_kept, self.n_scored = self.n_kept + len(found), self.n_scored + len(missing)
        if missing:
            found |= self._score(missing, keys)
        return found

    def _score(self, missing: Sequence[Text], keys: Mapping[Text, str]) -> dict[Text, float | None]:
        from trimtab.engine.reward import RewardModel

        model = RewardModel.load(self.folder, dtype=self.config.engine.dtype, device=self.config.engine.device)
        by_length = sorted(missing, key=lambda one: len(one[0]) + len(one[1]), reverse=True)
        found: dict[Text, float | None] = {}
        with self.reporter.track("reward model", total=len(missing), unit="answers") as advance:
            for start in range(0, len(by_length), AT_ONCE):
                if self.stop:
                    raise self.stop.error(f"judge: {len(found)} of {len(missing)} scores are kept")
                some = by_length[start : start + AT_ONCE]
                conversations = [(Message("user", prompt), Message("assistant", text)) for prompt, text in some]
                for one, score in zip(some, model.scores(conversations), strict=True):
                    found[one] = score
                    if score is not None:
                        self.cache.put(keys[one], judge=self.name, subject=one[0][:200], value=score)
                advance(len(some))
        return found
