"""A local reward model as a judge; its scores are kept in the verdict cache of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.special import expit

from trimtab.config import Config
from trimtab.engine import identity
from trimtab.judging.judges import Comparison, Submission, preferences_of
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop

BATCH = 64  # answers that are scored before they are kept


def reward_folder(config: Config) -> Path:
    """Where the judge's files lie. Raises ModelError where they are not there."""
    return identity.reward_folder_of(config.judge.model, offline=config.offline)


def _dtype_name(config: Config) -> str:
    from trimtab.engine import models

    return str(models.pick_dtype(config.engine.dtype, models.pick_device(config.engine.device)))


class RewardJudge:
    """A local reward model: preference 1 + σ(score of the model's answer − score of the baseline's).

    Bradley and Terry's probability, with the scores as the model was trained to give them. It has no order of answers.
    """

    def __init__(self, setup: RunSetup, cache: VerdictCache, *, reporter: Reporter, stop: Stop) -> None:
        self.config, self.cache, self.reporter, self.stop = setup.config, cache, reporter, stop
        self.folder = reward_folder(self.config)
        own = identity.identify(str(self.folder), offline=self.config.offline)
        self.digest = digest([own.weights, own.adapter, own.tokenizer, _dtype_name(self.config)])
        self.name = f"{self.config.judge.name}@{own.weights[:8]}"
        self.n_scored = self.n_cached = 0  # answers
        self.n_too_long = 0  # comparisons

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        """One preference for every comparison."""
        preferences = preferences_of(self, comparisons)
        self.n_too_long += preferences.count(None)
        return preferences

    def preference(self, baseline: float, model: float, /) -> float:
        """Bradley and Terry's probability."""
        return 1 + float(expit(model - baseline))

    def usage(self) -> JudgeUsage:
        """Counts are of answers scored and of scores kept from before."""
        return JudgeUsage(
            model=self.config.judge.model,
            base_url=None,
            reasons=f"too long for the reward model: {self.n_too_long}" if self.n_too_long else "",
            n_asked=self.n_scored,
            n_cached=self.n_cached,
            n_failed=self.n_too_long,
            prompt_tokens=0,
            completion_tokens=0,
            cost_usd=0.0,
            notes=(),
        )

    def scores(self, submissions: Sequence[Submission], /) -> list[float | None]:
        """The model's score of every answer; None for one that is too long for it."""
        keys = {submission: self._key(submission) for submission in submissions}
        rows = self.cache.get(keys.values())
        missing = [submission for submission, key in keys.items() if key not in rows]
        self.n_cached, self.n_scored = self.n_cached + len(keys) - len(missing), self.n_scored + len(missing)
        new = self._score(missing, keys) if missing else {}
        return [new[text] if text in new else rows[keys[text]].value for text in submissions]

    def _key(self, submission: Submission) -> str:
        is_one_text = submission.prompt == (Message("user", submission.text),)
        prompt = submission.text if is_one_text else [message.to_json() for message in submission.prompt]
        return digest(["reward", self.digest, prompt, submission.answer])

    def _score(
        self, submissions: Sequence[Submission], keys: Mapping[Submission, str]
    ) -> dict[Submission, float | None]:
        from trimtab.engine.reward import RewardModel

        model = RewardModel.load(self.folder, dtype=self.config.engine.dtype, device=self.config.engine.device)
        by_length = sorted(submissions, key=lambda item: len(item.text) + len(item.answer), reverse=True)
        scores: dict[Submission, float | None] = {}
        with self.reporter.track("reward model", total=len(submissions), unit="answers") as advance:
            for start in range(0, len(by_length), BATCH):
                if self.stop:
                    raise self.stop.error(f"judge: {len(scores)} of {len(submissions)} scores are kept")
                batch = by_length[start : start + BATCH]
                conversations = [(*item.prompt, Message("assistant", item.answer)) for item in batch]
                for item, score in zip(batch, model.scores(conversations), strict=True):
                    scores[item] = score
                    if score is not None:
                        self.cache.put(keys[item], judge=self.name, subject=item.text[:200], value=score)
                advance(len(batch))
        return scores
