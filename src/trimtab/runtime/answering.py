"""Answers of a model to the user's turns, decoded here or asked of a server; kept in the global cache.

They are kept by what decides them: the unaligned model's are the same for every objective, margin and learning rate, so
a sweep decodes them once. Every answer is on disk the moment it is complete; a stopped run goes on from there.
"""

from __future__ import annotations

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
from trimtab.engine.out_of_memory import is_out_of_memory
from trimtab.engine.processes import Interruption, Processes, deal
from trimtab.errors import DataError
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.runtime.answer_forecast import AnswerForecast
from trimtab.runtime.model_loading import chat_template
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop, stop_on_signal
from trimtab.runtime.transcript import Transcript, TurnAnswer, logs_of, open_transcript
from trimtab.sampling import Sampled, lay_for_decoding, sample
from trimtab.sampling.remote import remote_turn

__all__ = ["TurnAnswer", "answer_turns", "faster_products"]

NUMERICS = 3  # raise when the decoder's arithmetic changes, so that older answers are not taken for its own
_TURN = 2**32  # between the random streams of one turn and of the next
_FASTER_FROM = 10_000_000  # parameters; below, sending products to the faster library costs more than it saves


def answer_turns(
    folder: Path | None,
    conversations: Sequence[tuple[str, ...]],
    *,
    temperatures: Sequence[float],
    decoding: GenerateSection,
    setup: RunSetup,
    reporter: Reporter,
    description: str,
    endpoint: Endpoint | None = None,
    contexts: Mapping[int, tuple[Message, ...]] | None = None,
) -> list[list[TurnAnswer]]:
    """The answers to every conversation's turns, each turn asked with the answers before it, in order.

    conversations: the user's turns. temperatures: one a conversation; all else is as `decoding` has it.
    endpoint: the server to ask; without one the model in `folder` decodes here. With one, `folder` is what is served
        there, and only names it; None where there is no such folder here.
    contexts: the messages before the first turn, of conversations that have some, by their place.

    A conversation whose turn got no answer ends there, so its list is shorter: nothing is made up. The reporter says
    which. Raises StopError once a signal has come, and what loading, decoding and asking raise.
    """
    processes = setup.processes
    contexts = contexts or {}
    key = _key(
        folder,
        conversations,
        temperatures=temperatures,
        decoding=decoding,
        setup=setup,
        endpoint=endpoint,
        contexts=contexts,
    )
    cache_file = store.home() / "answers" / f"{key}.json"
    if processes.first(cache_file.is_file):
        reporter.say(f"{description}: {len(conversations)} answers from the cache")
        return [[TurnAnswer(**answer) for answer in turns] for turns in store.read_json(cache_file)]
    own = _share(conversations, processes, asks=endpoint is not None)
    name = f".{processes.rank}" if processes.rank else ""  # of a log that no other process writes
    with open_transcript(
        cache_file,
        conversations,
        own,
        contexts=contexts,
        reporter=reporter,
        description=description,
        name=name,
    ) as transcript:
        with stop_on_signal(processes) as stop:

            def work() -> tuple[dict[int, list[TurnAnswer]], dict[int, str], int | None]:
                if endpoint is not None:
                    _ask(transcript, endpoint, temperatures=temperatures, decoding=decoding, stop=stop)
                elif own:
                    assert folder is not None, "a model that decodes here has a folder"
                    model = _LocalModel.load(folder, setup, decoding, temperatures)
                    _decode(transcript, model, reporter=reporter, stop=stop)
                return {number: transcript.answers[number] for number in own}, transcript.missing, stop.signal

            for answers, missing, signal in processes.together(work):
                transcript.take(answers, missing)
                stop.agree([signal])
            for note in () if endpoint is None else endpoint.notes:
                reporter.say(f"{description}: {note}")
        if stop:
            raise stop.error(f"{description}: {transcript.n_answers} of {transcript.n_turns} answers are kept")
    transcript.report_missing(reporter, description)
    if processes.is_first and transcript.n_answers == transcript.n_turns:
        store.write_json(cache_file, [[asdict(answer) for answer in turns] for turns in transcript.answers])
        for log in logs_of(cache_file):
            store.remove(log)
    return transcript.answers


def _share(conversations: Sequence[tuple[str, ...]], processes: Processes, *, asks: bool) -> frozenset[int]:
    """Which conversations this process answers: what it has to read is what is known of their length. The first asks
    a server alone."""
    if asks:
        return frozenset(range(len(conversations)) if processes.is_first else ())
    shares = deal([sum(map(len, turns)) + 1 for turns in conversations], processes.size)
    return frozenset(shares[processes.rank])


def _key(
    folder: Path | None,
    conversations: Sequence[tuple[str, ...]],
    *,
    temperatures: Sequence[float],
    decoding: GenerateSection,
    setup: RunSetup,
    endpoint: Endpoint | None,
    contexts: Mapping[int, tuple[Message, ...]],
) -> str:
    model = None if folder is None else identity.identify(str(folder))
    if endpoint is None:
        ends = generation_end_ids(str(folder), offline=True)  # no digest of the model's files holds them
        by: list[Any] = [setup.precision, setup.config.engine.device, decoding.repetition_penalty, NUMERICS, ends]
    else:
        by = [endpoint.model, urlsplit(endpoint.base_url).hostname]  # a port may be new at each start
    return digest(
        {
            "weights": None if model is None else [model.weights, model.adapter],
            "tokenizer": None if model is None else model.tokenizer,
            "conversations": [list(turns) for turns in conversations],
            "temperatures": [float(temperature) for temperature in temperatures],
            "decoding": [decoding.max_new_tokens, decoding.top_p, decoding.seed],
            "by": by,
        }
        | ({"contexts": _contexts_json(contexts)} if contexts else {})
    )


def _contexts_json(contexts: Mapping[int, tuple[Message, ...]]) -> list[Any]:
    return [[number, [message.to_json() for message in contexts[number]]] for number in sorted(contexts)]


# --- by a server ---------------------------------------------------------------------------------------------------


def _ask(
    transcript: Transcript, endpoint: Endpoint, *, temperatures: Sequence[float], decoding: GenerateSection, stop: Stop
) -> None:
    def add(number: int, reply: Reply) -> None:
        transcript.add(number, TurnAnswer(reply.answer, reply.completion_tokens, reply.ending == "whole"))

    for turn in range(transcript.longest):
        remote_turn(
            endpoint,
            transcript.due(turn),
            turn=turn,
            max_new_tokens=decoding.max_new_tokens,
            temperatures=dict(enumerate(temperatures)),
            top_p=decoding.top_p,
            seed=decoding.seed,
            on_answer=add,
            on_missing=transcript.leave_out,
            stop=lambda: bool(stop),
        )


# --- here ----------------------------------------------------------------------------------------------------------


def _decode(transcript: Transcript, model: _LocalModel, *, reporter: Reporter, stop: Stop) -> None:
    forecast, batch_tokens = AnswerForecast(limit=model.decoding.max_new_tokens), model.decoding.batch_tokens

    def on_step(n_given: int, n_read: int) -> None:
        forecast.add(n_given, n_read)
        left = forecast.seconds_left
        if left is not None:
            transcript.show(**{"tokens/s": round(forecast.tokens_per_second), "seconds_left": left})
        stop.check()

    with faster_products(model.model), suppress(Interruption):
        for turn in range(transcript.longest):
            prompts = model.prompts(transcript, turn)
            while prompts:
                forecast.begin([len(prompt) for prompt in prompts.values()], n_later=transcript.n_after(turn))
                try:
                    model.answer(
                        prompts,
                        transcript,
                        turn=turn,
                        batch_tokens=batch_tokens,
                        on_step=on_step,
                        on_end=forecast.end,
                    )
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    batch_tokens = model.halve_batch(batch_tokens, prompts)
                    reporter.say(f"out of memory: decoding goes on with batches of {batch_tokens:,} tokens")
                prompts = {number: prompts[number] for number in transcript.due(turn)}


@dataclass(frozen=True, slots=True)
class _LocalModel:
    """A model in this process, and how it decodes. `temperatures`: one a conversation."""

    model: Any
    template: ChatTemplate
    decoding: GenerateSection
    temperatures: Sequence[float]

    @classmethod
    def load(
        cls, folder: Path, setup: RunSetup, decoding: GenerateSection, temperatures: Sequence[float]
    ) -> _LocalModel:
        setup.use_threads()
        bundle = models.load(
            str(folder),
            dtype=setup.precision,
            device=setup.config.engine.device,
            trust_remote_code=setup.config.model.trust_remote_code,
            offline=True,
        )
        lay_for_decoding(bundle.model)
        return cls(bundle.model, chat_template(bundle), decoding, temperatures)

    def prompts(self, transcript: Transcript, turn: int) -> dict[int, Sequence[int]]:
        """The prompts of a turn as the model reads them, the oldest messages left out where its window is too small.

        A conversation may take what `max_new_tokens` leaves of the window, at least half of it; one message that
        cannot be left out may take all but one token. One that cannot be asked is left out of the transcript.
        """
        window = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        limits = [None] if window is None else [max(window - self.decoding.max_new_tokens, window // 2), window - 1]
        prompts: dict[int, Sequence[int]] = {}
        for number, messages in transcript.due(turn).items():
            reason = ""
            for limit in limits:
                try:
                    prompts[number] = self.template.prompt_ids(messages, max_prompt_tokens=limit)
                    break
                except DataError as error:
                    reason = error.message
            else:
                transcript.leave_out(number, reason)
        return prompts

    def answer(
        self,
        prompts: Mapping[int, Sequence[int]],
        transcript: Transcript,
        *,
        turn: int,
        batch_tokens: int,
        on_step: Callable[[int, int], None],
        on_end: Callable[..., None],
    ) -> None:
        """Sample the answers to these prompts; each goes into the transcript when it is complete."""
        numbers = list(prompts)

        def add(index: int, output: Sampled) -> None:
            text = self.template.answer_text(output.ids)
            transcript.add(numbers[index], TurnAnswer(text, len(output.ids), output.finished))
            on_end(len(output.ids) + output.finished, finished=output.finished)

        sample(
            self.model,
            list(prompts.values()),
            stop_ids=self.template.stop_ids,
            max_new_tokens=self.decoding.max_new_tokens,
            temperature=[self.temperatures[number] for number in numbers],
            top_p=self.decoding.top_p,
            repetition_penalty=self.decoding.repetition_penalty,
            seed=self.decoding.seed,
            streams=[turn * _TURN + number for number in numbers],
            batch_tokens=batch_tokens,
            on_done=add,
            on_step=on_step,
        )

    def halve_batch(self, batch_tokens: int, prompts: Mapping[int, Sequence[int]]) -> int:
        """The next budget to try for these prompts. Raises the error that is being handled when none is left."""
        longest = max(map(len, prompts.values())) + self.decoding.max_new_tokens
        return memory.halve_pack_tokens(min(batch_tokens, longest * len(prompts)), longest_group=longest)


def faster_products(model: Any) -> AbstractContextManager[None]:
    """The products that training uses, where the model is large enough for them to pay."""
    large = sum(weight.numel() for weight in model.parameters()) >= _FASTER_FROM
    return matmul.faster_linears() if large else nullcontext()
