"""The judge's endpoint over the verdict cache of all runs: nothing that was answered once is asked again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from trimtab import store
from trimtab.config import Config
from trimtab.endpoint import Endpoint, Reply
from trimtab.errors import ConfigError, RunError
from trimtab.judging.prices import Prices, prices_for
from trimtab.judging.questions import CallEstimate, Outcome, Question, ask_all, estimate
from trimtab.judging.verdict_cache import VerdictCache, question_key, verdict_cache_path
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.signals import Stop

NO_LOG_PROBS = "no log-probs"


def endpoint(config: Config) -> Endpoint:
    """The judge's server."""
    judge = config.judge
    return Endpoint(judge.model, base_url=config.base_url, timeout=judge.timeout, concurrency=judge.concurrency)


def prices(config: Config) -> Prices | None:
    """What the judge's tokens cost; None where nobody says. Raises ConfigError for a limit that cannot be kept."""
    judge = config.judge
    token_prices = prices_for(
        judge.model,
        base_url=endpoint(config).base_url,
        input_price=judge.input_price,
        output_price=judge.output_price,
    )
    if judge.max_cost is not None and token_prices is None:
        raise ConfigError(
            f"judge.max_cost = {judge.max_cost:g} cannot be kept: the prices of {judge.model} are not known here",
            remedy="give them with --input-price and --output-price, in US dollars a million tokens",
        )
    return token_prices


@contextmanager
def cached_endpoint(config: Config, *, reporter: Reporter, stop: Stop) -> Iterator[CachedEndpoint]:
    """The judge's endpoint over the verdict cache of all runs."""
    with store.database(verdict_cache_path()) as connection:
        yield CachedEndpoint(config, VerdictCache(connection), reporter=reporter, stop=stop)


class CachedEndpoint:
    """Asks the judge's endpoint, keeps every verdict in the cache, and counts."""

    def __init__(self, config: Config, cache: VerdictCache, *, reporter: Reporter, stop: Stop) -> None:
        self.endpoint, self.prices, self.cache = endpoint(config), prices(config), cache
        self.config, self.reporter, self.stop = config, reporter, stop
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []  # what must be said beside the numbers
        self.n_probed = 0  # verdicts that were asked for ahead of the others, and are found in the cache by them

    def __call__(self, questions: Sequence[Question], *, reporter: Reporter | None = None) -> Outcome:
        """What came of the questions. Raises StopError after a signal and RunError at the limit of costs, both after
        everything that was answered is kept."""
        max_cost = self.config.judge.max_cost
        spent_usd = math.fsum(outcome.charged_usd for outcome in self.outcomes)
        outcome = ask_all(
            questions,
            judge=self.config.judge.model,
            endpoint=self.endpoint,
            cache=self.cache,
            prices=self.prices,
            max_cost=None if max_cost is None else max(max_cost - spent_usd, 0.0),
            reporter=reporter or self.reporter,
            stop=lambda: bool(self.stop),
        )
        self.outcomes.append(outcome)
        if self.stop:
            raise self.stop.error("judge: every verdict so far is kept")
        if outcome.stop_reason:
            raise RunError(
                f"judge: stopped at judge.max_cost = {max_cost:g} US dollars; "
                f"{len(outcome.values)} of {len(questions)} verdicts are kept",
                remedy="the same command with a higher --max-cost goes on from there",
            )
        return outcome

    def estimate(self, questions: Sequence[Question]) -> CallEstimate:
        """Calls, tokens and cost of the questions that are not cached."""
        judge = self.config.judge.model
        return estimate(questions, judge=judge, endpoint=self.endpoint, cache=self.cache, prices=self.prices)

    def announce(self, questions: Sequence[Question]) -> None:
        """Say what asking them will take, before any is asked."""
        calls = self.estimate(questions)
        if calls.n_calls:
            cost = "" if calls.cost_usd is None else f", at most {calls.cost_usd:.2f} US dollars"
            self.reporter.say(
                f"judge: {calls.n_calls:,} calls to {self.endpoint.base_url}, {calls.n_cached:,} verdicts are kept; "
                f"about {calls.prompt_tokens:,} tokens in, at most {calls.completion_tokens_at_most:,} out{cost}"
            )

    def gives_log_probs(self, question: Question) -> bool:
        """Whether the endpoint sends log-probabilities, found out once by a question that has to be asked anyway.

        A reply without text (a refusal, thoughts alone) says nothing about them.
        """
        judge = self.config.judge.model
        key = question_key(judge=judge, base_url=self.endpoint.base_url, request=question.request)
        if self.cache.get([key]):
            return True
        failure = self.cache.failures([key]).get(key)
        if failure is not None and failure.kind == NO_LOG_PROBS:
            return False
        n_without = 0

        def parse(reply: Reply) -> float | None:
            nonlocal n_without
            if reply.logprobs is not None or not reply.answer:
                return question.parse(reply)
            n_without += 1
            return None

        outcome = self([replace(question, parse=parse)], reporter=SilentReporter())
        self.n_probed += len(outcome.values)
        outcome.failures.clear()  # it is asked again with all the others, and counted there
        if not n_without:
            return True  # or it did not answer, and is asked again with all the others
        message = "the endpoint answered without log-probabilities"
        self.cache.fail(key, judge=judge, subject=question.id, kind=NO_LOG_PROBS, message=message, attempts=n_without)
        return False

    def usage(self) -> JudgeUsage:
        """Where was asked, and calls, tokens and money so far."""
        costs = [outcome.cost for outcome in self.outcomes]
        kinds = Counter(failure.kind for outcome in self.outcomes for failure in outcome.failures.values())
        return JudgeUsage(
            model=self.config.judge.model,
            base_url=self.endpoint.base_url,
            reasons=", ".join(f"{kind}: {n}" for kind, n in kinds.most_common()),
            n_asked=sum(outcome.n_asked for outcome in self.outcomes),
            n_cached=sum(outcome.n_cached for outcome in self.outcomes) - self.n_probed,
            n_failed=sum(len(outcome.failures) for outcome in self.outcomes),
            prompt_tokens=sum(outcome.prompt_tokens for outcome in self.outcomes),
            completion_tokens=sum(outcome.completion_tokens for outcome in self.outcomes),
            cost_usd=None if None in costs else math.fsum(cost for cost in costs if cost is not None),
            notes=(*self.endpoint.notes, *self._model_note(), *self.notes),
        )

    def _model_note(self) -> list[str]:
        """One name may stand for another model after a server's restart: verdicts of two are no judge's."""
        models = Counter[str]()
        for outcome in self.outcomes:
            models.update({name: n for name, n in outcome.models.items() if name})
        if len(models) < 2:
            return []
        names = ", ".join(f"{name} ({n:,})" for name, n in models.most_common())
        return [
            f"verdicts under the name {self.config.judge.model} come from {len(models)} models: {names}; a judge of "
            "another name asks all of them again"
        ]
