"""Answers from a server that speaks OpenAI's protocol, one turn of many conversations at a time.

What the server does with a seed is its own business; each conversation and turn gets a seed of its own, so that equal
prompts need not have equal answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from trimtab.endpoint import Endpoint, Failure, Reply, Request
from trimtab.records import Message

_SEEDS = 2**31  # servers keep seeds in 32 bits, and some read negative ones as "any"
SHORTEST_REPEAT = 40  # characters of an answer that chance does not give twice
GREEDY = (
    "the server answers equal prompts alike, whatever temperature and seed it is given: it seems to sample greedily"
)
_TURN = 1_000_003  # between the seeds of one turn and of the next


def remote_turn(
    endpoint: Endpoint,
    prompts: Mapping[int, tuple[Message, ...]],
    *,
    turn: int,
    max_new_tokens: int,
    temperatures: Mapping[int, float],
    top_p: float,
    seed: int,
    on_answer: Callable[[int, Reply], None],
    on_missing: Callable[[int, str], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Ask for the answers that come next; keys are the caller's numbers of the conversations.

    Each prompt ends in one call of `on_answer` or, with the reason, of `on_missing`, in this thread. A reply without
    text counts as an answer only where the model ended it by itself, without having thought. Once `stop()` is true
    nothing new is asked. Raises what `Endpoint.ask` raises; whatever was answered before has been handed over.
    """

    answers: dict[int, str] = {}

    def on_reply(request: Request, reply: Reply) -> None:
        number, reason = int(request.id), _no_answer(reply)
        if reason is None:
            answers[number] = reply.answer
            on_answer(number, reply)
        else:
            on_missing(number, reason)

    def on_failure(request: Request, failure: Failure) -> None:
        on_missing(int(request.id), f"{failure.kind}: {failure.message}")

    requests = [
        Request(
            id=str(number),
            messages=messages,
            max_tokens=max_new_tokens,
            temperature=temperatures[number],
            top_p=top_p,
            seed=(seed * _TURN * _TURN + turn * _TURN + number) % _SEEDS,
        )
        for number, messages in prompts.items()
    ]
    endpoint.ask(requests, on_reply=on_reply, on_failure=on_failure, stop=stop)
    sampled_texts = {number: text for number, text in answers.items() if temperatures[number] > 0}
    if _ignores_seeds(prompts, sampled_texts) and GREEDY not in endpoint.notes:
        endpoint.notes.append(GREEDY)


def _ignores_seeds(prompts: Mapping[int, tuple[Message, ...]], answers: Mapping[int, str]) -> bool:
    """Whether equal prompts, each with a seed of its own, always got one answer, and not a short one."""
    by_prompt = defaultdict[tuple[Message, ...], list[str]](list)
    for number, text in answers.items():
        by_prompt[prompts[number]].append(text)
    repeats = [texts for texts in by_prompt.values() if len(texts) > 1]
    return bool(repeats) and all(len(set(texts)) == 1 and len(texts[0]) >= SHORTEST_REPEAT for texts in repeats)


def _no_answer(reply: Reply) -> str | None:
    """Why a reply is no answer of the model; None where it is one, which may be cut by the limit or be empty."""
    match reply.ending:
        case "refused":
            return f"refused: {reply.refusal or 'the server filtered the answer'}"
        case "tool call":
            return "the model called a tool instead of answering"
        case "whole" if not reply.text.strip() and not reply.has_thoughts:
            return None  # the model's own word
        case _ if not reply.answer:
            description = (
                "a reply of thoughts alone" if reply.has_thoughts or reply.text.strip() else "a reply without text"
            )
            return f"{description} (finish reason {reply.finish_reason or 'not given'})"
        case _:
            return None
