"""Answers of a model to prompts, decoded here; kept in the global cache by what decides them.

The unaligned model's answers are the same for every objective, margin and learning rate, so a sweep decodes them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trimtab import store
from trimtab.config import Config, GenerateSection
from trimtab.data import chat
from trimtab.engine import identity, models
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.sampling import sample

NUMERICS = 1  # raise when the decoder's arithmetic changes, so that older answers are not taken for its own


@dataclass(frozen=True, slots=True)
class Spoken:
    """The text of one answer, its sampled tokens, and whether it ended by itself."""

    text: str
    n_tokens: int
    finished: bool


def answer(
    folder: Path,
    prompts: Sequence[tuple[Message, ...]],
    *,
    config: Config,
    decoding: GenerateSection,
    seed: int,
    reporter: Reporter,
    what: str,
) -> list[Spoken]:
    """The answers of the model in `folder`, in the order of the prompts; decoded only where the cache has none."""
    model = identity.identify(str(folder))
    key = digest(
        {
            "weights": [model.weights, model.adapter],
            "tokenizer": model.tokenizer,
            "prompts": [[message.to_json() for message in prompt] for prompt in prompts],
            "decoding": decoding.model_dump(exclude={"batch_tokens"}),
            "engine": [config.engine.dtype, config.engine.device, config.data.max_prompt_tokens],
            "seed": seed,
            "numerics": NUMERICS,
        }
    )
    kept = store.home() / "answers" / f"{key}.json"
    if kept.is_file():
        reporter.say(f"{what}: {len(prompts)} answers from the cache")
        return [Spoken(**row) for row in store.read_json(kept)]
    spoken = _decode(folder, prompts, config=config, decoding=decoding, seed=seed, reporter=reporter, what=what)
    store.write_json(kept, [asdict(one) for one in spoken])
    return spoken


def _decode(
    folder: Path,
    prompts: Sequence[tuple[Message, ...]],
    *,
    config: Config,
    decoding: GenerateSection,
    seed: int,
    reporter: Reporter,
    what: str,
) -> list[Spoken]:
    loaded = models.load(
        str(folder),
        dtype=config.engine.dtype,
        device=config.engine.device,
        trust_remote_code=config.model.trust_remote_code,
        offline=True,
    )
    template = chat.ChatTemplate.of(loaded.tokenizer, generation_end_ids=loaded.model.generation_config.eos_token_id)
    rendered = [template.prompt_ids(prompt, max_prompt_tokens=config.data.max_prompt_tokens) for prompt in prompts]
    with reporter.track(what, total=len(prompts), unit="answers") as advance:
        sampled = sample(
            loaded.model,
            rendered,
            stop_ids=template.stop_ids,
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            repetition_penalty=decoding.repetition_penalty,
            seed=seed,
            batch_tokens=decoding.batch_tokens,
            on_done=lambda _index, _sampled: advance(1),
        )
    texts = (loaded.tokenizer.decode(one.ids, skip_special_tokens=True).strip() for one in sampled)
    return [Spoken(text, len(one.ids), one.finished) for text, one in zip(texts, sampled, strict=True)]
