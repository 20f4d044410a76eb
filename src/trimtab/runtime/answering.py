"""Answers of a model to the user's turns, decoded here or asked of a server; kept in the global cache.

They are kept by what decides them: the unaligned model's are the same for every objective, margin and learning rate, so
a sweep decodes them once. Every answer is on disk the moment it is complete; a stopped run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab import store
from trimtab.config import GenerateSection
from trimtab.data.chat import ChatTemplate
from trimtab.data.loading import generation_end_ids
from trimtab.endpoint import Endpoint, Reply
from trimtab.engine import identity, matmul, memory, models
from trimtab.errors import DataError
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime.model_loading import chat_template
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Interrupted, Stop, stop_on_signal
from trimtab.runtime.transcript import Spoken, Transcript, transcript
from trimtab.sampling import Sampled, lay_for_decoding, sample
from trimtab.sampling.remote import remote_turn

__all__ = ["Spoken", "answer_turns", "faster_products"]

NUMERICS = 2  # raise when the decoder's arithmetic changes, so that older answers are not taken for its own
_TURN = 2**32  # between the random streams of one turn and of the next
_FASTER_FROM = 10_000_000  # parameters; below, sending products to the faster library costs more than it saves


def answer_turns(
    folder: Path,
    conversations: Sequence[tuple[str, ...]],
    *,
    temperatures: Sequence[float],
    decoding: GenerateSection,
    setup: RunSetup,
    reporter: Reporter,
    what: str,
    endpoint: Endpoint | None = None,
) -> list[list[Spoken]]:
    """The answers to every conversation's turns, each turn asked with the answers before it, in order.

    conversations: the user's turns. temperatures: one a conversation; all else is as `decoding` has it.
    endpoint: the server to ask; without one the model in `folder` decodes here. With one, `folder` is what is served
        there, and only names it.

    A conversation whose turn got no answer ends there, so its list is shorter: nothing is made up. The reporter says
    which. Raises StopError once a signal has come, and what loading, decoding and asking raise.
    """
    key = _key(folder, conversations, temperatures=temperatures, decoding=decoding, setup=setup, endpoint=endpoint)
    kept = store.home() / "answers" / f"{key}.json"
    if kept.is_file():
        reporter.say(f"{what}: {len(conversations)} answers from the cache")
        return [[Spoken(**one) for one in turns] for turns in store.read_json(kept)]
    with transcript(kept.with_suffix(".jsonl"), conversations, reporter=reporter, what=what) as said:
        with stop_on_signal() as stop:
            if endpoint is None:
                _decode(
                    said,
                    folder,
                    temperatures=temperatures,
                    decoding=decoding,
                    setup=setup,
                    reporter=reporter,
                    stop=stop,
                )
            else:
                _ask(said, endpoint, temperatures=temperatures, decoding=decoding, stop=stop)
                for note in endpoint.notes:
                    reporter.say(f"{what}: {note}")
        if stop:
            raise stop.error(f"{what}: {said.n_answers} of {said.n_turns} answers are kept")
    said.report_missing(reporter, what)
    if said.n_answers == said.n_turns:
        store.write_json(kept, [[asdict(one) for one in turns] for turns in said.answers])
        store.remove(kept.with_suffix(".jsonl"))
    return said.answers


def _key(
    folder: Path,
    conversations: Sequence[tuple[str, ...]],
    *,
    temperatures: Sequence[float],
    decoding: GenerateSection,
    setup: RunSetup,
    endpoint: Endpoint | None,
) -> str:
    model, engine = identity.identify(str(folder)), setup.config.engine
    ends = generation_end_ids(str(folder), offline=True)  # no digest of the model's files holds them
    here = [engine.dtype, engine.device, decoding.repetition_penalty, NUMERICS, ends]
    return digest(
        {
            "weights": [model.weights, model.adapter],
            "tokenizer": model.tokenizer,
            "conversations": [list(turns) for turns in conversations],
            "temperatures": [float(temperature) for temperature in temperatures],
            "decoding": [decoding.max_new_tokens, decoding.top_p, decoding.seed],
            "by": here
            if endpoint is None
            else [endpoint.model, urlsplit(endpoint.base_url).hostname],  # a port may be new at each start
        }
    )


# --- by a server ---------------------------------------------------------------------------------------------------


def _ask(
    said: Transcript, endpoint: Endpoint, *, temperatures: Sequence[float], decoding: GenerateSection, stop: Stop
) -> None:
    def heard(number: int, reply: Reply) -> None:
        said.add(number, Spoken(reply.answer, reply.completion_tokens, reply.ending == "whole"))

    for turn in range(said.longest):
        remote_turn(
            endpoint,
            said.due(turn),
            turn=turn,
            max_new_tokens=decoding.max_new_tokens,
            temperatures=dict(enumerate(temperatures)),
            top_p=decoding.top_p,
            seed=decoding.seed,
            on_answer=heard,
            on_missing=said.leave_out,
            stop=lambda: bool(stop),
        )


# --- here ----------------------------------------------------------------------------------------------------------


def _decode(
    said: Transcript,
    folder: Path,
    *,
    temperatures: Sequence[float],
    decoding: GenerateSection,
    setup: RunSetup,
    reporter: Reporter,
    stop: Stop,
) -> None:
    setup.use_threads()
    on_step = _counting(said, stop)
    speaker = _Speaker.of(folder, said, temperatures=temperatures, decoding=decoding, setup=setup, on_step=on_step)
    batch_tokens = decoding.batch_tokens
    with faster_products(speaker.loaded.model), suppress(Interrupted):
        for turn in range(said.longest):
            prompts = speaker.rendered(turn)
            while prompts:
                try:
                    speaker.speak(prompts, turn=turn, batch_tokens=batch_tokens)
                except (RuntimeError, MemoryError) as error:
                    if not memory.is_out_of_memory(error):
                        raise
                    batch_tokens = speaker.halved(batch_tokens, prompts)
                    reporter.say(f"out of memory: decoding goes on with batches of {batch_tokens:,} tokens")
                prompts = {number: prompts[number] for number in said.due(turn)}


@dataclass(frozen=True, slots=True)
class _Speaker:
    """A model in this process, and what it answers to."""

    loaded: models.Loaded
    template: ChatTemplate
    said: Transcript
    temperatures: Sequence[float]
    told: GenerateSection
    on_step: Callable[[int], None]

    @classmethod
    def of(
        cls,
        folder: Path,
        said: Transcript,
        *,
        temperatures: Sequence[float],
        decoding: GenerateSection,
        setup: RunSetup,
        on_step: Callable[[int], None],
    ) -> _Speaker:
        loaded = models.load(
            str(folder),
            dtype=setup.config.engine.dtype,
            device=setup.config.engine.device,
            trust_remote_code=setup.config.model.trust_remote_code,
            offline=True,
        )
        lay_for_decoding(loaded.model)
        return cls(loaded, chat_template(loaded), said, temperatures, decoding, on_step)

    def rendered(self, turn: int) -> dict[int, Sequence[int]]:
        """The prompts of a turn as the model reads them, the oldest messages left out where its window is too small.

        A conversation may take what `max_new_tokens` leaves of the window, at least half of it; one message that
        cannot be left out may take all but one token. One that cannot be asked is left out of the transcript.
        """
        window = getattr(self.loaded.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        limits = [None] if window is None else [max(window - self.told.max_new_tokens, window // 2), window - 1]
        prompts: dict[int, Sequence[int]] = {}
        for number, messages in self.said.due(turn).items():
            reason = ""
            for limit in limits:
                try:
                    prompts[number] = self.template.prompt_ids(messages, max_prompt_tokens=limit)
                    break
                except DataError as error:
                    reason = error.message
            else:
                self.said.leave_out(number, reason)
        return prompts

    def speak(self, prompts: Mapping[int, Sequence[int]], *, turn: int, batch_tokens: int) -> None:
        """Sample the answers to these prompts; each goes into the transcript when it is complete."""
        numbers = list(prompts)

        def done(index: int, one: Sampled) -> None:
            self.said.add(numbers[index], Spoken(self.template.answer_text(one.ids), len(one.ids), one.finished))

        sample(
            self.loaded.model,
            list(prompts.values()),
            stop_ids=self.template.stop_ids,
            max_new_tokens=self.told.max_new_tokens,
            temperature=[self.temperatures[number] for number in numbers],
            top_p=self.told.top_p,
            repetition_penalty=self.told.repetition_penalty,
            seed=self.told.seed,
            streams=[turn * _TURN + number for number in numbers],
            batch_tokens=batch_tokens,
            on_done=done,
            on_step=self.on_step,
        )

    def halved(self, batch_tokens: int, prompts: Mapping[int, Sequence[int]]) -> int:
        """The next budget to try for these prompts. Raises the error that is being handled when none is left."""
        longest = max(map(len, prompts.values())) + self.told.max_new_tokens
        return memory.halve_pack_tokens(min(batch_tokens, longest * len(prompts)), longest_group=longest)


def _counting(said: Transcript, stop: Stop) -> Callable[[int], None]:
    """Shows tokens a second, and leaves by `Interrupted` once a signal has come."""
    total, began = 0, time.monotonic()

    def count(n_tokens: int) -> None:
        nonlocal total
        total += n_tokens
        said.show(round(total / max(time.monotonic() - began, 1e-9)))
        stop.check()

    return count


def faster_products(model: Any) -> AbstractContextManager[None]:
    """The products that training uses, where the model is large enough for them to pay."""
    large = sum(weight.numel() for weight in model.parameters()) >= _FASTER_FROM
    return matmul.faster_linears() if large else nullcontext()
