"""Asks a judge's endpoint, keeps every verdict in the store of all runs, and counts.

Nothing that was answered once is asked again, whatever run asks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from trimtab import store
from trimtab.config import Config
from trimtab.endpoint import Endpoint, Reply
from trimtab.errors import ConfigError, RunError
from trimtab.judging import questions as judge_questions
from trimtab.judging.prices import Prices, prices_for
from trimtab.judging.questions import Outcome, Question
from trimtab.judging.verdict_cache import VerdictCache, question_key, verdict_cache_path
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime.signals import Stop

NO_LOG_PROBS = "no log-probs"


def endpoint(config: Config) -> Endpoint:
    """The judge's server."""
    told = config.judge
    return Endpoint(told.model, base_url=config.base_url, timeout=told.timeout, concurrency=told.concurrency)


def prices(config: Config) -> Prices | None:
    """What the judge's tokens cost; None where nobody says. Raises ConfigError for a limit that cannot be kept."""
    told = config.judge
    known = prices_for(
        told.model,
        base_url=endpoint(config).base_url,
        input_price=told.input_price,
        output_price=told.output_price,
    )
    if told.max_cost is not None and known is None:
        raise ConfigError(
            f"judge.max_cost = {told.max_cost:g} cannot be kept: the prices of {told.model} are not known here",
            remedy="give them with --input-price and --output-price, in US dollars a million tokens",
        )
    return known


@contextmanager
def cached_endpoint(config: Config, *, reporter: Reporter, stop: Stop) -> Iterator[CachedEndpoint]:
    """An `CachedEndpoint` over the verdict store of all runs."""
    with store.database(verdict_cache_path()) as connection:
        yield CachedEndpoint(config, VerdictCache(connection), reporter=reporter, stop=stop)


class CachedEndpoint:
    """Asks the judge's endpoint, keeps every verdict in the store, and counts."""

    def __init__(self, config: Config, cache: VerdictCache, *, reporter: Reporter, stop: Stop) -> None:
        self.endpoint, self.prices, self.cache = endpoint(config), prices(config), cache
        self.config, self.reporter, self.stop = config, reporter, stop
        self.outcomes: list[Outcome] = []
        self.n_probed = 0  # verdicts that were asked for ahead of the others, and are found in the store by them

    def __call__(self, questions: Sequence[Question], *, reporter: Reporter | None = None) -> Outcome:
        """What came of the questions. Raises StopError after a signal and RunError at the limit of costs, both after
        everything that was answered is kept."""
        outcome = judge_questions.ask_all(
            questions,
            judge=self.config.judge.model,
            endpoint=self.endpoint,
            cache=self.cache,
            prices=self.prices,
            max_cost=self._left(),
            reporter=reporter or self.reporter,
            stop=lambda: bool(self.stop),
        )
        self.outcomes.append(outcome)
        if self.stop:
            raise self.stop.error("judge: every verdict so far is kept")
        if outcome.stopped:
            raise RunError(
                f"judge: stopped at judge.max_cost = {self.config.judge.max_cost:g} US dollars; "
                f"{len(outcome.values)} of {len(questions)} verdicts are kept",
                remedy="the same command with a higher --max-cost goes on from there",
            )
        return outcome

    def estimate(self, questions: Sequence[Question]) -> judge_questions.Estimate:
        """Calls, tokens and cost of the questions that are not kept."""
        return judge_questions.estimate(
            questions, judge=self.config.judge.model, endpoint=self.endpoint, cache=self.cache, prices=self.prices
        )

    def announce(self, questions: Sequence[Question]) -> None:
        """Say what asking them will take, before any is asked."""
        told = self.estimate(questions)
        if told.n_calls:
            cost = "" if told.cost_usd is None else f", at most {told.cost_usd:.2f} US dollars"
            self.reporter.say(
                f"judge: {told.n_calls:,} calls to {self.endpoint.base_url}, {told.n_cached:,} verdicts are kept; "
                f"about {told.prompt_tokens:,} tokens in, at most {told.completion_tokens_at_most:,} out{cost}"
            )

    def gives_log_probs(self, question: Question) -> bool:
        """Whether the endpoint sends log-probabilities, found out once by a question that has to be asked anyway."""
        judge = self.config.judge.model
        key = question_key(judge=judge, base_url=self.endpoint.base_url, request=question.request)
        if self.cache.get([key]):
            return True
        failed = self.cache.failures([key]).get(key)
        if failed is not None and failed.kind == NO_LOG_PROBS:
            return False
        without: list[Reply] = []

        def read(reply: Reply) -> float | None:
            if reply.logprobs is not None:
                return question.parse(reply)
            without.append(reply)
            return None

        self.n_probed += len(self([replace(question, parse=read)], reporter=SilentReporter()).values)
        if not without:
            return True  # or it did not answer, and is asked again with all the others
        told = "the endpoint answered without log-probabilities"
        self.cache.fail(key, judge=judge, subject=question.id, kind=NO_LOG_PROBS, message=told, attempts=len(without))
        return False

    def about(self) -> dict[str, Any]:
        """Where was asked, and calls, tokens and money so far; cost is None where prices are not known."""
        costs = [outcome.cost for outcome in self.outcomes]
        kinds = Counter(failure.kind for outcome in self.outcomes for failure in outcome.failures.values())
        return {
            "model": self.config.judge.model,
            "base_url": self.endpoint.base_url,
            "reasons": ", ".join(f"{kind}: {n}" for kind, n in kinds.most_common()),
            "n_asked": sum(outcome.n_asked for outcome in self.outcomes),
            "n_cached": sum(outcome.n_cached for outcome in self.outcomes) - self.n_probed,
            "n_failed": sum(len(outcome.failures) for outcome in self.outcomes),
            "prompt_tokens": sum(outcome.prompt_tokens for outcome in self.outcomes),
            "completion_tokens": sum(outcome.completion_tokens for outcome in self.outcomes),
            "cost_usd": None if None in costs else math.fsum(cost for cost in costs if cost is not None),
            "notes": list(self.endpoint.notes),
        }

    def _left(self) -> float | None:
        limit = self.config.judge.max_cost
        spent = self.about()["cost_usd"] or 0.0
        return None if limit is None else max(limit - spent, 0.0)
