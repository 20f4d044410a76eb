"""The things that travel between rooms: frozen, small, with a JSON form each.

A pair is a type, never a position in a tensor. Text is `str`, token ids are tuples of `int`, lengths of answers are
characters unless a name says tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Ranges = tuple[tuple[int, int], ...]


def compact_json(value: object) -> str:
    """Without spaces, keys in the order that they came in: templates write tools and calls as they stand."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """sha256 (64 hex digits) of a JSON-able value in canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `extras` is a JSON object of what it holds beside its content (`tool_calls`, `name`, `reasoning_content`, …); empty
    where it holds nothing else. A response that calls tools on its way has the messages before its last one, calls and
    results, in `steps` there.
    """

    role: Role
    content: str
    extras: str = ""

    @property
    def text(self) -> str:
        """All that it says, for comparisons and sizes."""
        return self.content + self.extras

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages that a response consists of: itself alone, unless it has steps."""
        extras = json.loads(self.extras) if '"steps"' in self.extras else {}
        steps = extras.pop("steps", [])
        if not steps:
            return (self,)
        return (*map(Message.from_json, steps), replace(self, extras=compact_json(extras) if extras else ""))

    def to_json(self) -> dict[str, Any]:
        plain = {"role": self.role, "content": self.content}
        return plain | json.loads(self.extras) if self.extras else plain

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Message:
        extras = {key: value for key, value in row.items() if key not in ("role", "content")}
        return cls(row["role"], row["content"], compact_json(extras) if extras else "")


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt (whole messages, the last one from the user or a tool) and two assistant responses to it.

    `id` names the row for people (file and row number); `meta` is carried along and never read by training.
    `plain` marks a prompt that was published as raw text to be continued, not as a conversation. `chosen_extras` and
    `rejected_extras` are the responses' `Message.extras`; `template_arguments` is a JSON object of what the chat
    template is given for this pair (`tools`, and variables such as `enable_thinking`), or empty. `score_gap` is how
    much higher the chosen response was scored, in the judge's own unit, above 0; None where nobody scored them.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    plain: bool = False
    meta: tuple[tuple[str, str], ...] = ()
    chosen_extras: str = ""
    rejected_extras: str = ""
    template_arguments: str = ""
    score_gap: float | None = None

    @property
    def responses(self) -> tuple[Message, Message]:
        """Chosen and rejected as messages of the assistant."""
        return (
            Message("assistant", self.chosen, self.chosen_extras),
            Message("assistant", self.rejected, self.rejected_extras),
        )

    def to_json(self) -> dict[str, Any]:
        names = ("chosen_extras", "rejected_extras", "template_arguments", "score_gap")
        return {name: part for name in names if (part := getattr(self, name))} | {
            "id": self.id,
            "prompt": [m.to_json() for m in self.prompt],
            "chosen": self.chosen,
            "rejected": self.rejected,
            "plain": self.plain,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Pair:
        return cls(
            id=row["id"],
            prompt=tuple(map(Message.from_json, row["prompt"])),
            chosen=row["chosen"],
            rejected=row["rejected"],
            plain=row.get("plain", False),
            meta=tuple(sorted(row.get("meta", {}).items())),
            chosen_extras=row.get("chosen_extras", ""),
            rejected_extras=row.get("rejected_extras", ""),
            template_arguments=row.get("template_arguments", ""),
            score_gap=row.get("score_gap"),
        )


@dataclass(frozen=True, slots=True)
class Ranked:
    """A prompt and several assistant responses to it, each with a score (higher is better; NaN: none). Pairs are made
    of it by rule, and it is stored nowhere. The rest is as in `Pair`."""

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[Message, ...]
    scores: tuple[float, ...]
    plain: bool = False
    meta: tuple[tuple[str, str], ...] = ()
    template_arguments: str = ""


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A prompt and one assistant response to it that was found good (`label` true) or bad. The rest is as in `Pair`."""

    id: str
    prompt: tuple[Message, ...]
    completion: str
    label: bool
    plain: bool = False
    meta: tuple[tuple[str, str], ...] = ()
    completion_extras: str = ""
    template_arguments: str = ""

    @property
    def responses(self) -> tuple[Message]:
        """The completion as a message of the assistant."""
        return (Message("assistant", self.completion, self.completion_extras),)

    @classmethod
    def of_pair(cls, pair: Pair) -> tuple[Unpaired, Unpaired]:
        """The chosen response as a good one, the rejected one as a bad one."""
        sides = zip(("good", "bad"), pair.responses, strict=True)
        good, bad = (
            cls(
                f"{pair.id}/{name}",
                pair.prompt,
                response.content,
                label=name == "good",
                plain=pair.plain,
                meta=pair.meta,
                completion_extras=response.extras,
                template_arguments=pair.template_arguments,
            )
            for name, response in sides
        )
        return good, bad

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("completion_extras", "template_arguments")}
        return {name: text for name, text in parts.items() if text} | {
            "id": self.id,
            "prompt": [m.to_json() for m in self.prompt],
            "completion": self.completion,
            "label": self.label,
            "plain": self.plain,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Unpaired:
        return cls(
            id=row["id"],
            prompt=tuple(map(Message.from_json, row["prompt"])),
            completion=row["completion"],
            label=row["label"],
            plain=row.get("plain", False),
            meta=tuple(sorted(row.get("meta", {}).items())),
            completion_extras=row.get("completion_extras", ""),
            template_arguments=row.get("template_arguments", ""),
        )


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as the model sees it: ids of the prompt (with the assistant header) and of each response.

    A response ends with exactly one end-of-turn id unless it was cut at the limit. `chosen_foreign` and
    `rejected_foreign` are half-open ranges of its ids that the assistant did not write (results of tools on its way):
    they are read, and neither scored nor learnt. An unpaired row has one of the two:
    a good completion is a chosen response with nothing beside it, a bad one a rejected response; the other has no ids.
    """

    id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_cut: bool = False
    rejected_cut: bool = False
    score_gap: float | None = None
    chosen_foreign: Ranges = ()
    rejected_foreign: Ranges = ()

    @classmethod
    def of(
        cls,
        row: Pair | Unpaired,
        prompt_ids: tuple[int, ...],
        responses: Sequence[tuple[int, ...]],
        *,
        room: int,
        foreign: Sequence[Ranges] = ((), ()),
    ) -> TokenPair:
        """The row with the ids of its prompt and of its responses, each cut to `room` tokens."""
        gap = None if isinstance(row, Unpaired) else row.score_gap
        if isinstance(row, Unpaired):
            responses = [*responses, ()] if row.label else [(), *responses]
            foreign = [foreign[0], ()] if row.label else [(), foreign[0]]
        chosen, rejected = responses
        ranges = [tuple((start, min(end, room)) for start, end in of if start < room) for of in foreign]
        cuts = len(chosen) > room, len(rejected) > room
        return cls(row.id, prompt_ids, chosen[:room], rejected[:room], *cuts, gap, *ranges)

    @property
    def own_lengths(self) -> tuple[int, int]:
        """Tokens of each response that the assistant wrote."""
        return (
            len(self.chosen_ids) - sum(end - start for start, end in self.chosen_foreign),
            len(self.rejected_ids) - sum(end - start for start, end in self.rejected_foreign),
        )

    @property
    def sides(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The responses that are there, each with its side: 0 for chosen, 1 for rejected."""
        return tuple((side, ids) for side, ids in enumerate((self.chosen_ids, self.rejected_ids)) if ids)

    @property
    def n_tokens(self) -> int:
        """Tokens of one prompt group: the prompt once and both responses."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    def to_json(self) -> dict[str, Any]:
        return {  # written out: `asdict` copies every single id, which took half of the time of preparing data
            "id": self.id,
            "prompt_ids": list(self.prompt_ids),
            "chosen_ids": list(self.chosen_ids),
            "rejected_ids": list(self.rejected_ids),
            "chosen_cut": self.chosen_cut,
            "rejected_cut": self.rejected_cut,
            **{f"{side}_foreign": ranges for side, ranges in self._foreign.items() if ranges},
        } | ({} if self.score_gap is None else {"score_gap": self.score_gap})

    @property
    def _foreign(self) -> dict[str, Ranges]:
        return {"chosen": self.chosen_foreign, "rejected": self.rejected_foreign}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TokenPair:
        return cls(
            id=row["id"],
            prompt_ids=tuple(row["prompt_ids"]),
            chosen_ids=tuple(row["chosen_ids"]),
            rejected_ids=tuple(row["rejected_ids"]),
            chosen_cut=row.get("chosen_cut", False),
            rejected_cut=row.get("rejected_cut", False),
            score_gap=row.get("score_gap"),
            chosen_foreign=_ranges(row.get("chosen_foreign", ())),
            rejected_foreign=_ranges(row.get("rejected_foreign", ())),
        )


def _ranges(pairs: Iterable[Sequence[int]]) -> Ranges:
    return tuple((start, end) for start, end in pairs)


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one benchmark prompt. `output` is text; `n_tokens` counts what was sampled.

    The JSON form is AlpacaEval's `model_outputs` row with three keys more.
    """

    prompt_id: str
    instruction: str
    output: str
    generator: str
    dataset: str = ""
    n_tokens: int = 0
    finished: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Answer:
        return cls(
            prompt_id=str(row.get("prompt_id", row["instruction"])),
            instruction=row["instruction"],
            output=row["output"],
            generator=row["generator"],
            dataset=row.get("dataset", ""),
            n_tokens=row.get("n_tokens", 0),
            finished=row.get("finished", True),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged comparison, baseline (output_1) against model (output_2).

    `preference` follows AlpacaEval: 1 = the baseline wins, 2 = the model wins, 1.5 = tie, between = a judge's
    probability; None = the judge gave no verdict, which is counted as missing and never as a score.
    """

    prompt_id: str
    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    annotator: str
    preference: float | None
    dataset: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Verdict:
        return cls(
            prompt_id=str(row.get("prompt_id", row["instruction"])),
            instruction=row["instruction"],
            output_1=row["output_1"],
            output_2=row["output_2"],
            generator_1=row["generator_1"],
            generator_2=row["generator_2"],
            annotator=str(row.get("annotator", "")),
            preference=row["preference"],
            dataset=row.get("dataset", ""),
        )


Direction = Literal["above", "below", "not distinguishable", "unknown"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with what belongs to it: its 95 % interval, what it was made from, and how.

    `value` and `ci95` are in `unit`, and None where they could not be computed. `n` counts the rows behind the number
    (prompts, pairs, questions), `n_missing` those that had no value, `n_seeds` the seeds that were pooled;
    `seed_deviation` is the standard deviation of the seeds' own values, None where there is one seed.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    method: str
    n_missing: int = 0
    n_seeds: int = 1
    unit: str = ""
    seed_deviation: float | None = None

    def scaled(self, factor: float, *, unit: str = "") -> Estimate:
        """The same estimate in another unit; `factor` must not be negative."""
        bounds = self.ci95
        return replace(
            self,
            value=None if self.value is None else factor * self.value,
            ci95=None if bounds is None else (factor * bounds[0], factor * bounds[1]),
            seed_deviation=None if self.seed_deviation is None else factor * self.seed_deviation,
            unit=unit,
        )

    def within(self, low: float, high: float) -> Estimate:
        """The same estimate where the number can only lie between `low` and `high`, and so can its interval."""
        if self.ci95 is None:
            return self
        return replace(self, ci95=(min(max(self.ci95[0], low), high), max(min(self.ci95[1], high), low)))

    def direction(self, even: float) -> Direction:
        """On which side of `even` the whole interval lies."""
        if self.value is None or self.ci95 is None:
            return "unknown"
        low, high = self.ci95
        return "above" if low > even else "below" if high < even else "not distinguishable"

    def to_json(self) -> dict[str, Any]:
        """Without the unit, which the key says; `seed_deviation` stands only where seeds were pooled."""
        tree: dict[str, Any] = {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "n": self.n,
            "n_missing": self.n_missing,
            "n_seeds": self.n_seeds,
            "method": self.method,
        }
        return tree if self.n_seeds == 1 else tree | {"seed_deviation": self.seed_deviation}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], *, unit: str = "") -> Estimate:
        bounds = tree["ci95"]
        return cls(
            value=tree["value"],
            ci95=None if bounds is None else (bounds[0], bounds[1]),
            n=tree["n"],
            method=tree["method"],
            n_missing=tree.get("n_missing", 0),
            n_seeds=tree.get("n_seeds", 1),
            unit=unit,
            seed_deviation=tree.get("seed_deviation"),
        )
