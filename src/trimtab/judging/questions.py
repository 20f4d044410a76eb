"""Many questions to one judge: what the verdict cache has is not asked again, what is asked is cached at once.

A question becomes a value when its reply can be read. One that cannot (prose where a letter was asked for) is asked
again a little and is a failure then: kept apart, never a score, and asked again by the next run. Nothing is asked that
could pass the budget.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trimtab.endpoint import Endpoint, Failure, Reply, Request
from trimtab.errors import ConfigError, RunError
from trimtab.judging.prices import Budget, Prices, TokensOf, prompt_tokens
from trimtab.judging.verdict_cache import VerdictCache, question_key
from trimtab.progress import Advance, Reporter, SilentReporter, printable

NO_VERDICT = "no verdict"
REFUSAL = "refused"
CUT_PROMPT = "cut prompt"
MORE_TRIES = 2  # after a reply that is no verdict
MORE_TRIES_GREEDY = 1  # at temperature 0 nearly the same reply is to be expected
MOST_WITHOUT_VERDICT = 20  # replies without a single verdict say that this judge gives none: others are not paid for
LONGEST_EXCERPT = 160  # characters of an unreadable reply
SHORTEST_WINDOW = 256  # tokens that a server keeps of a prompt at least; a smaller count is no count of the prompt


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
class CallEstimate:
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

    `n_cached` questions were answered from the cache, `n_asked` by the server in this call, with `n_calls` replies
    (those that were no verdict are paid too) and their tokens. `cost` in US dollars: None without prices, or where a
    reply came without a count of its tokens; `charged_usd` is what counts against a budget, an estimate for those.
    `models`: the names under which the server's replies came. `stop_reason` says why some have neither a value nor a
    failure: "asked to" or "max cost".
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
    charged_usd: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    stop_reason: Literal["", "asked to", "max cost"] = ""

    @property
    def n_failed(self) -> int:
        return len(self.failures)

    def settle(self, group: Sequence[Question], value: float, reply: Reply) -> None:
        """The value of questions that ask the same."""
        for question in group:
            self.values[question.id], self.replies[question.id] = value, reply
        self.models[reply.model] += len(group)


def estimate(
    questions: Sequence[Question],
    *,
    endpoint: Endpoint,
    cache: VerdictCache,
    judge: str,
    prices: Prices | None = None,
    tokens_of: TokensOf | None = None,
) -> CallEstimate:
    """What `ask_all` would do now, if every reply could be read.

    Without `tokens_of`, a token is taken for four characters: near enough for English, too few for many other scripts.
    Seconds by this judge's replies that are cached, with `concurrency` under way all the time.
    """
    groups = _by_key(questions, endpoint)
    verdicts = _cached_verdicts(groups, cache)
    requests = [group[0].request for key, group in groups.items() if key not in verdicts]
    prompt = sum(prompt_tokens(request, tokens_of=tokens_of) for request in requests)
    completion = sum(request.max_tokens for request in requests)
    seconds = cache.mean_seconds(judge)
    return CallEstimate(
        n_calls=len(requests),
        n_cached=sum(len(groups[key]) for key in verdicts),
        prompt_tokens=round(prompt),
        completion_tokens_at_most=completion,
        cost_usd=None if prices is None else prices.cost(prompt, completion),
        seconds=None if seconds is None else seconds * math.ceil(len(requests) / endpoint.concurrency),
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
    """Values for all questions, from the cache or from the endpoint; each is in the cache before the next is asked.

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
    groups = _by_key(questions, endpoint)
    outcome = Outcome(cost=None if prices is None else 0.0)
    for key, (value, reply) in _cached_verdicts(groups, cache).items():
        group = groups.pop(key)
        outcome.settle(group, value, reply)
        outcome.n_cached += len(group)
    if groups:
        budget = Budget(prices, max_cost, tokens_of)
        show, total = reporter or SilentReporter(), len(questions)
        with show.track(f"asking {judge}", total=total, unit="verdicts", n_done=outcome.n_cached) as advance:
            _Round(groups, outcome, cache=cache, judge=judge, budget=budget, advance=advance).run(endpoint, stop)
    return outcome


class _Round:
    """Asks every group until it is settled. All its methods run in the thread of `ask_all`."""

    def __init__(
        self,
        groups: Mapping[str, Sequence[Question]],
        outcome: Outcome,
        *,
        cache: VerdictCache,
        judge: str,
        budget: Budget,
        advance: Advance,
    ) -> None:
        self._groups, self._outcome, self._advance = groups, outcome, advance
        self._cache, self._judge, self._budget = cache, judge, budget
        self._unsettled = dict.fromkeys(groups, 0)  # key → replies that were no verdict
        self._error: Exception | None = None  # why no more is asked

    def run(self, endpoint: Endpoint, stop: Callable[[], bool]) -> None:
        """Again for those whose reply was no verdict, and those that did not fit beside what was under way."""
        while self._unsettled and self._error is None:
            requests = [replace(self._groups[key][0].request, id=key) for key in self._unsettled]
            if stop():
                self._outcome.stop_reason = "asked to"
                return
            if not self._budget.fits(requests[0]):
                self._outcome.stop_reason = "max cost"
                return
            endpoint.ask(
                requests,
                on_reply=self._on_reply,
                on_failure=self._on_failure,
                stop=lambda: self._error is not None or stop(),
                admit=self._admit,
            )
        if self._error is not None:
            raise self._error

    def _admit(self, request: Request) -> bool:
        fits = self._budget.fits(request)
        if fits:
            self._budget.reserve(request)
        return fits

    def _on_reply(self, request: Request, reply: Reply) -> None:
        key, group, outcome = request.id, self._groups[request.id], self._outcome
        self._budget.charge(request, reply)
        outcome.n_calls += 1
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        outcome.charged_usd = self._budget.spent
        if outcome.cost is not None:
            outcome.cost = self._budget.spent if reply.counts_tokens else None
        value = self._value(group[0], reply)
        if value is None:
            self._without_verdict(request, reply)
            return
        self._cache.put(
            key,
            judge=self._judge,
            subject=group[0].id,
            value=value,
            reply=reply.to_json(),
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            seconds=reply.seconds,
        )
        outcome.settle(group, value, reply)
        self._finish(key)

    def _value(self, question: Question, reply: Reply) -> float | None:
        try:
            return _read(question, reply)
        except Exception as error:  # raised again when what is under way has been handed over
            self._error = self._error or error
            return None

    def _without_verdict(self, request: Request, reply: Reply) -> None:
        """A failure for now; for good when it has been asked often enough, or asking again would not help."""
        key, final = request.id, _lasting_failure(request, reply)
        self._unsettled[key] += 1
        n_tries = self._unsettled[key]
        failure = replace(final, attempts=n_tries) if final else Failure(NO_VERDICT, _excerpt(reply), n_tries)
        self._record(key, failure)
        if self._outcome.n_calls >= MOST_WITHOUT_VERDICT and not self._outcome.values:
            self._error = self._error or RunError(
                f"{self._judge} gives no verdicts: none of {self._outcome.n_calls} replies is one; {failure.message}",
                remedy="choose a judge that follows its instructions, or another way of asking (judge.rubric)",
            )
        if final or n_tries > (MORE_TRIES if request.temperature > 0 else MORE_TRIES_GREEDY):
            self._give_up(key, failure)

    def _on_failure(self, request: Request, failure: Failure) -> None:
        self._budget.release(request)
        self._record(request.id, failure)
        self._give_up(request.id, failure)

    def _record(self, key: str, failure: Failure) -> None:
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
        self._finish(key)

    def _finish(self, key: str) -> None:
        del self._unsettled[key]
        outcome, n = self._outcome, len(self._groups[key])
        outcome.n_asked += n
        figures: dict[str, float] = {}
        if outcome.failures:
            figures["failed"] = outcome.n_failed
        if outcome.cost is not None:
            figures["USD"] = outcome.cost
        self._advance(n, **figures)


def prompt_was_cut(request: Request, reply: Reply) -> bool:
    """Whether the server counts fewer tokens in the prompt than it must have: it left out a part of it, as servers
    with a short context do without a word.

    Tokenizers make 1.3 tokens of an English word, .87 where they may join words (SuperBPE), and hardly any has tokens
    of more than 16 letters. Counts below `SHORTEST_WINDOW` are not believed to count the prompt at all.
    """
    if reply.prompt_tokens < SHORTEST_WINDOW:
        return False
    words = [word for message in request.messages for word in re.findall(r"\w+", message.content)]
    return reply.prompt_tokens < max(0.7 * len(words), sum(map(len, words)) / 16)


def _lasting_failure(request: Request, reply: Reply) -> Failure | None:
    """Why the same request would bring no verdict again, where that can be told."""
    if prompt_was_cut(request, reply):
        return Failure(
            CUT_PROMPT,
            f"the server counts {reply.prompt_tokens:,} tokens in a prompt of {request.n_characters:,} characters: "
            "it left out a part of it (give it a longer context)",
            1,
        )
    if reply.ending == "refused":
        return Failure(REFUSAL, f"the judge refused: {_start_of(reply.refusal or reply.text) or 'filtered'}", 1)
    return None


def _read(question: Question, reply: Reply) -> float | None:
    if prompt_was_cut(question.request, reply) or reply.ending == "refused":
        return None
    value = question.parse(reply)
    return None if value is None or not math.isfinite(value) else value


def _by_key(questions: Sequence[Question], endpoint: Endpoint) -> dict[str, list[Question]]:
    """Questions by the key of what they ask."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        key = question_key(judge=endpoint.model, base_url=endpoint.base_url, request=question.request)
        groups.setdefault(key, []).append(question)
    return groups


def _cached_verdicts(groups: Mapping[str, Sequence[Question]], cache: VerdictCache) -> dict[str, tuple[float, Reply]]:
    """What the cache has. Replies are read anew, so that a better `parse` counts; what it refuses is asked again."""
    verdicts: dict[str, tuple[float, Reply]] = {}
    for key, row in cache.get(groups).items():
        reply = None if row.reply is None else Reply.from_json(row.reply)
        value = None if reply is None else _read(groups[key][0], reply)
        if value is not None and reply is not None:
            verdicts[key] = value, reply
    return verdicts


def _excerpt(reply: Reply) -> str:
    """Why a reply is no verdict, with its start."""
    finish_reason = printable(reply.finish_reason) or "unknown"
    if not reply.text.strip():
        thoughts = ", it holds thoughts alone" if reply.has_thoughts else ""
        return f"the reply is empty (finish reason {finish_reason}{thoughts})"
    if not reply.answer:
        return f"the reply holds thoughts alone (finish reason {finish_reason}): {_start_of(reply.text)}"
    suffix = "" if reply.ending == "whole" else f" (finish reason {finish_reason})"
    return f"no verdict can be read{suffix} from: {_start_of(reply.text)}"


def _start_of(text: str) -> str:
    return printable(text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…")
