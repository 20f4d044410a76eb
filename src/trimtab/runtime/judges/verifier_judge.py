"""A program as a judge (`judging.verifiers`); its scores are kept in the verdict cache of all runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from trimtab.config import Config
from trimtab.judging.judges import Comparison, Submission, by_sign, preferences_of
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.judging.verifiers import Verifier, VerifierFailure, verifier
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.signals import Stop


class VerifierJudge:
    """The answer with the higher score wins, equal scores tie; what has no score has a failure in the cache.

    As many answers are scored at once as there are processors. rows: the benchmark's, as JSON objects by prompt id,
    for `preferences`.
    """

    def __init__(
        self, config: Config, cache: VerdictCache, *, rows: Mapping[str, str], reporter: Reporter, stop: Stop
    ) -> None:
        self.config, self.cache, self.reporter, self.stop = config, cache, reporter, stop
        self.rows = rows
        program = self._program()
        self.digest = program.digest
        program.close()
        self.name = f"{config.judge.name}@{self.digest[:8]}"
        self.n_scored = self.n_cached = 0
        self.failures = Counter[str]()

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        """One preference for every comparison."""
        return preferences_of(self, comparisons, rows=self.rows)

    def preference(self, baseline: float, model: float, /) -> float:
        return by_sign(baseline, model)

    def scores(self, submissions: Sequence[Submission], /) -> list[float | None]:
        """The program's score of every answer; None where it failed, hung or gave no number."""
        keys = {
            item: digest(["verifier", self.digest, [m.to_json() for m in item.prompt], item.answer, item.row])
            for item in submissions
        }
        rows = self.cache.get(keys.values())
        scores: dict[Submission, float | None] = {item: rows[key].value for item, key in keys.items() if key in rows}
        missing = [item for item in keys if item not in scores]
        self.n_cached, self.n_scored = self.n_cached + len(scores), self.n_scored + len(missing)
        programs = SimpleQueue[Verifier]()

        def score(item: Submission) -> float | VerifierFailure:
            program = programs.get()
            try:
                return program.score(item)
            finally:
                programs.put(program)

        n_workers = min(os.cpu_count() or 1, self.config.judge.concurrency, max(len(missing), 1))
        with (
            self.reporter.track("verifier", total=len(missing), unit="answers") as advance,
            ThreadPoolExecutor(n_workers) as pool,
        ):
            workers = [self._program() for _ in range(n_workers)] if missing else []
            for program in workers:
                programs.put(program)
            try:
                for item, outcome in zip(missing, pool.map(score, missing), strict=True):
                    scores[item] = self._store(item, keys[item], outcome)
                    advance(1)
                    if self.stop:
                        pool.shutdown(cancel_futures=True)
                        raise self.stop.error("judge: every score so far is kept")
            finally:
                pool.shutdown(cancel_futures=True)
                for program in workers:
                    program.close()
        return [scores[item] for item in submissions]

    def usage(self) -> JudgeUsage:
        """Counts are of answers scored and of scores kept from before."""
        return JudgeUsage(
            model=self.config.judge.name,
            base_url=None,
            reasons=", ".join(f"{kind}: {n}" for kind, n in self.failures.most_common()),
            n_asked=self.n_scored,
            n_cached=self.n_cached,
            n_failed=self.failures.total(),
            prompt_tokens=0,
            completion_tokens=0,
            cost_usd=0.0,
            notes=(),
        )

    def _program(self) -> Verifier:
        return verifier(self.config.judge.name, seconds=self.config.judge.verifier_seconds)

    def _store(self, item: Submission, key: str, outcome: float | VerifierFailure) -> float | None:
        subject = item.text[:200]
        if isinstance(outcome, float):
            self.cache.put(key, judge=self.name, subject=subject, value=outcome)
            return outcome
        self.cache.fail(key, judge=self.name, subject=subject, kind=outcome.kind, message=outcome.message, attempts=1)
        if not self.failures[outcome.kind]:
            self.reporter.say(f"judge: {outcome.kind}: {outcome.message} (prompt: {subject[:60]!r})")
        self.failures[outcome.kind] += 1
        return None
