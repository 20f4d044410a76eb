"""A local reward model as a judge; its scores are kept in the verdict cache of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.special import expit

from trimtab.engine import identity
from trimtab.judging.judges import Comparison
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop

Text = tuple[str, str]  # an instruction and an answer to it
BATCH = 64  # answers that are scored before they are kept


class RewardJudge:
    """A local reward model: preference 1 + σ(score of the model's answer − score of the baseline's).

    Bradley and Terry's probability, with the scores as the model was trained to give them. It has no order of answers.
    """

    def __init__(self, setup: RunSetup, cache: VerdictCache, *, reporter: Reporter, stop: Stop) -> None:
        self.config, self.cache, self.reporter, self.stop = setup.config, cache, reporter, stop
        self.folder = identity.reward_folder_of(self.config.judge.model, offline=self.config.offline)
        self.weights = identity.identify(str(self.folder)).weights
        self.name = f"{self.config.judge.name}@{self.weights[:8]}"
        self.n_scored = self.n_cached = 0  # answers
        self.n_too_long = 0  # comparisons

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        """One preference for every comparison."""
        texts = {(pair.instruction, answer) for pair in comparisons for answer in (pair.baseline, pair.model)}
        scores = self._scores(sorted(texts))
        score_pairs = [
            (scores[pair.instruction, pair.baseline], scores[pair.instruction, pair.model]) for pair in comparisons
        ]
        self.n_too_long += sum(None in pair for pair in score_pairs)
        return [None if old is None or new is None else 1 + float(expit(new - old)) for old, new in score_pairs]

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

    def _scores(self, texts: Sequence[Text]) -> dict[Text, float | None]:
        keys = {text: digest(["reward", self.weights, *text]) for text in texts}
        rows = self.cache.get(list(keys.values()))
        scores: dict[Text, float | None] = {text: rows[key].value for text, key in keys.items() if key in rows}
        missing = [text for text in texts if keys[text] not in rows]
        self.n_cached, self.n_scored = self.n_cached + len(scores), self.n_scored + len(missing)
        return scores | self._score(missing, keys) if missing else scores

    def _score(self, texts: Sequence[Text], keys: Mapping[Text, str]) -> dict[Text, float | None]:
        from trimtab.engine.reward import RewardModel

        model = RewardModel.load(self.folder, dtype=self.config.engine.dtype, device=self.config.engine.device)
        by_length = sorted(texts, key=lambda text: len(text[0]) + len(text[1]), reverse=True)
        scores: dict[Text, float | None] = {}
        with self.reporter.track("reward model", total=len(texts), unit="answers") as advance:
            for start in range(0, len(by_length), BATCH):
                if self.stop:
                    raise self.stop.error(f"judge: {len(scores)} of {len(texts)} scores are kept")
                batch = by_length[start : start + BATCH]
                conversations = [(Message("user", prompt), Message("assistant", answer)) for prompt, answer in batch]
                for text, score in zip(batch, model.scores(conversations), strict=True):
                    scores[text] = score
                    if score is not None:
                        self.cache.put(keys[text], judge=self.name, subject=text[0][:200], value=score)
                advance(len(batch))
        return scores
