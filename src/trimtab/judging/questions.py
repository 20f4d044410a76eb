"""Many questions to one judge: what is kept is not asked again, what is asked is kept at once, within a budget.

A question becomes a value when its reply can be read. One that cannot (prose where a letter was asked for) is asked
again a little and is a failure then: kept apart, never a score, and asked again by the next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trimtab.endpoint import Endpoint, Failure, Reply, Request
from trimtab.errors import ConfigError, RunError
from trimtab.judging.prices import Budget, Prices, TokensOf, prompt_tokens
from trimtab.judging.verdict_cache import VerdictCache, question_key
from trimtab.progress import Advance, Reporter, SilentReporter, printable

NO_VERDICT = "no verdict"
AGAIN = 2  # further questions after a reply that is no verdict
AGAIN_GREEDY = 1  # at temperature 0 nearly the same reply is to be expected
NONE_OF = 20  # replies without a single verdict say that this judge gives none; the others need not be paid for
SHOWN = 160  # characters of an unreadable reply


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how the reply is read: `parse` returns None for a reply that is no verdict.

    `id` is the caller's name for it, unique in a call. Equal requests are asked once and read by the first one's
    `parse`.
    """

    id: str
    request: Request
    parse: Callable[[Reply], float | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking would take: calls, tokens, US dollars (None without prices), seconds (None where unknown).

    Tokens of prompts are an estimate, those of completions an upper bound, and so is the cost of the two.
    """

    n_calls: int
    n_cached: int
    prompt_tokens: int
    completion_tokens_at_most: int
    cost_usd: float | None
    seconds: float | None


@dataclass(slots=True)
class Outcome:
    """What came of the questions, by their ids.

    `n_cached` questions were answered from the store, `n_asked` by the server in this call, with `n_calls` replies
    (those that were no verdict are paid too) and their tokens. `cost` in US dollars, None without prices. `stopped`
    says why some have neither a value nor a failure: "asked to" or "max cost".
    """

    values: dict[str, float] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    n_cached: int = 0
    n_asked: int = 0
    n_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    stopped: Literal["", "asked to", "max cost"] = ""

    @property
    def n_failed(self) -> int:
        return len(self.failures)


def estimate(
    questions: Sequence[Question],
    *,
    endpoint: Endpoint,
    cache: VerdictCache,
    judge: str,
    prices: Prices | None = None,
    tokens_of: TokensOf | None = None,
) -> Estimate:
    """What `ask_all` would do now, if every reply could be read.

    Without `tokens_of`, a token is taken for four characters: near enough for English, too few for many other scripts.
    Seconds by this judge's replies that are kept, with `concurrency` under way all the time.
    """
    groups = _grouped(questions, endpoint)
    known = _known(groups, cache)
    todo = [group[0].request for key, group in groups.items() if key not in known]
    prompt = sum(prompt_tokens(request, tokens_of=tokens_of) for request in todo)
    completion = sum(request.max_tokens for request in todo)
    each = cache.mean_seconds(judge)
    return Estimate(
        n_calls=len(todo),
        n_cached=sum(len(groups[key]) for key in known),
        prompt_tokens=round(prompt),
        completion_tokens_at_most=completion,
        cost_usd=None if prices is None else prices.cost(prompt, completion),
        seconds=None if each is None else each * math.ceil(len(todo) / endpoint.concurrency),
    )


def ask_all(
    questions: Sequence[Question],
    *,
    endpoint: Endpoint,
    cache: VerdictCache,
    judge: str,
    prices: Prices | None = None,
    max_cost: float | None = None,
    tokens_of: TokensOf | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Values for all questions, from the store or from the endpoint; each is in the store before the next is asked.

    `judge` is the name under which verdicts are kept for people; what is asked again is decided by the request, the
    model and the server. `max_cost` (US dollars, this call): no request is sent that could pass it, counting what was
    spent by the server's figures (an estimate where it gives none) and, for those under way, prompt by estimate and
    completion at most. `stop()` true ends after what is under way.

    Raises ConfigError for `max_cost` without prices; and after what was under way is kept: EndpointError when the
    server refuses or is gone, RunError when no verdict can be read from any of the first replies, and whatever a
    `parse` raises.
    """
    if max_cost is not None and prices is None:
        raise ConfigError(
            f"judge.max_cost cannot be held without the prices of {endpoint.model}",
            remedy="give judge.input_price and judge.output_price (US dollars for a million tokens)",
        )
    assert len({question.id for question in questions}) == len(questions), "a question's id is its own"
    groups = _grouped(questions, endpoint)
    outcome = Outcome(cost=None if prices is None else 0.0)
    for key, reading in _known(groups, cache).items():
        group = groups.pop(key)
        _settle(outcome, group, reading)
        outcome.n_cached += len(group)
    asking = _Asking(groups, outcome, cache=cache, judge=judge, budget=Budget(prices, max_cost, tokens_of))
    if groups:
        show, total = reporter or SilentReporter(), len(questions)
        with show.track(f"asking {judge}", total=total, unit="verdicts", done=outcome.n_cached) as asking.advance:
            asking.run(endpoint, stop)
    return outcome


class _Asking:
    """Asks every group until it is settled. All its methods run in the thread of `ask_all`."""

    def __init__(
        self,
        groups: Mapping[str, Sequence[Question]],
        outcome: Outcome,
        *,
        cache: VerdictCache,
        judge: str,
        budget: Budget,
    ) -> None:
        self._groups, self._outcome = groups, outcome
        self._cache, self._judge, self._budget = cache, judge, budget
        self._unread = dict.fromkeys(groups, 0)  # of those still to be settled: replies that were no verdict
        self._broken: Exception | None = None  # why no more is asked
        self.advance: Advance

    def run(self, endpoint: Endpoint, stop: Callable[[], bool]) -> None:
        """In rounds: for those whose reply was no verdict, and those that did not fit beside what was under way."""
        while self._unread and self._broken is None:
            requests = [replace(self._groups[key][0].request, id=key) for key in self._unread]
            if stop():
                self._outcome.stopped = "asked to"
                return
            if not self._budget.fits(requests[0]):
                self._outcome.stopped = "max cost"
                return
            endpoint.ask(
                requests,
                on_reply=self._reply,
                on_failure=self._failure,
                stop=lambda: self._broken is not None or stop(),
                admit=self._admit,
            )
        if self._broken is not None:
            raise self._broken

    def _admit(self, request: Request) -> bool:
        fits = self._budget.fits(request)
        if fits:
            self._budget.sent(request)
        return fits

    def _reply(self, request: Request, reply: Reply) -> None:
        key, group, outcome = request.id, self._groups[request.id], self._outcome
        self._budget.answered(request, reply)
        outcome.n_calls += 1
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        if outcome.cost is not None:
            outcome.cost = self._budget.spent
        reading = self._read(group[0], reply)
        if reading is None:
            self._unreadable(key, reply, again=AGAIN if request.temperature > 0 else AGAIN_GREEDY)
            return
        self._cache.put(
            key,
            judge=self._judge,
            subject=group[0].id,
            value=reading.value,
            reply=reply.to_json(),
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            seconds=reply.seconds,
        )
        _settle(outcome, group, reading)
        self._settled(key)

    def _read(self, question: Question, reply: Reply) -> _Reading | None:
        try:
            return _reading(question, reply)
        except Exception as error:  # raised again when what is under way has been heard
            self._broken = self._broken or error
            return None

    def _unreadable(self, key: str, reply: Reply, *, again: int) -> None:
        """A failure for now, and for good when it has been asked often enough."""
        self._unread[key] += 1
        failure = Failure(NO_VERDICT, _words(reply), self._unread[key])
        self._keep(key, failure)
        if self._outcome.n_calls >= NONE_OF and not self._outcome.values:
            self._broken = self._broken or RunError(
                f"{self._judge} gives no verdicts: none of {self._outcome.n_calls} replies is one; {failure.message}",
                remedy="choose a judge that follows its instructions, or another way of asking (judge.rubric)",
            )
        if self._unread[key] > again:
            self._give_up(key, failure)

    def _failure(self, request: Request, failure: Failure) -> None:
        self._budget.failed(request)
        self._keep(request.id, failure)
        self._give_up(request.id, failure)

    def _keep(self, key: str, failure: Failure) -> None:
        self._cache.fail(
            key,
            judge=self._judge,
            subject=self._groups[key][0].id,
            kind=failure.kind,
            message=failure.message,
            attempts=failure.attempts,
        )

    def _give_up(self, key: str, failure: Failure) -> None:
        self._outcome.failures.update({question.id: failure for question in self._groups[key]})
        self._settled(key)

    def _settled(self, key: str) -> None:
        del self._unread[key]
        outcome, n = self._outcome, len(self._groups[key])
        outcome.n_asked += n
        figures: dict[str, float] = {}
        if outcome.failures:
            figures["failed"] = outcome.n_failed
        if outcome.cost is not None:
            figures["USD"] = outcome.cost
        self.advance(n, **figures)


@dataclass(frozen=True, slots=True)
class _Reading:
    value: float
    reply: Reply


def _reading(question: Question, reply: Reply) -> _Reading | None:
    value = question.parse(reply)
    return None if value is None or not math.isfinite(value) else _Reading(value, reply)


def _grouped(questions: Sequence[Question], endpoint: Endpoint) -> dict[str, list[Question]]:
    """Questions by the key of what they ask."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        key = question_key(judge=endpoint.model, base_url=endpoint.base_url, request=question.request)
        groups.setdefault(key, []).append(question)
    return groups


def _known(groups: Mapping[str, Sequence[Question]], cache: VerdictCache) -> dict[str, _Reading]:
    """What the store has. Replies are read anew, so that a better `parse` counts; what it refuses is asked again."""
    read = {
        key: _reading(groups[key][0], Reply.from_json(kept.reply))
        for key, kept in cache.get(groups).items()
        if kept.reply is not None
    }
    return {key: reading for key, reading in read.items() if reading is not None}


def _settle(outcome: Outcome, group: Sequence[Question], reading: _Reading) -> None:
    outcome.values.update({question.id: reading.value for question in group})
    outcome.replies.update({question.id: reading.reply for question in group})


def _words(reply: Reply) -> str:
    """Why a reply is no verdict, with its start."""
    if not reply.text.strip():
        return f"the reply is empty (finish reason {printable(reply.finish_reason) or 'unknown'})"
    start = reply.text if len(reply.text) <= SHOWN else reply.text[: SHOWN - 1] + "…"
    return f"no verdict can be read from: {printable(start)}"
