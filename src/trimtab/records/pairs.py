"""A prompt and what was found of responses to it: pairs, ranked responses, single ones with a label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from trimtab.records.json_form import compact_json

Role = Literal["system", "user", "assistant", "tool"]


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
        names = ("chosen_extras", "rejected_extras", "score_gap")
        own = {name: part for name in names if (part := getattr(self, name))}
        return own | _prompt_json(self) | {"chosen": self.chosen, "rejected": self.rejected}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Pair:
        return cls(
            **_prompt_parts(row),
            chosen=row["chosen"],
            rejected=row["rejected"],
            chosen_extras=row.get("chosen_extras", ""),
            rejected_extras=row.get("rejected_extras", ""),
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
        extras = {"completion_extras": self.completion_extras} if self.completion_extras else {}
        return extras | _prompt_json(self) | {"completion": self.completion, "label": self.label}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Unpaired:
        return cls(
            **_prompt_parts(row),
            completion=row["completion"],
            label=row["label"],
            completion_extras=row.get("completion_extras", ""),
        )


def _prompt_json(row: Pair | Unpaired) -> dict[str, Any]:
    """What rows of both kinds have, without the keys that are mostly empty."""
    tree = {"id": row.id, "prompt": [m.to_json() for m in row.prompt], "plain": row.plain, "meta": dict(row.meta)}
    return tree | ({"template_arguments": row.template_arguments} if row.template_arguments else {})


def _prompt_parts(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": tree["id"],
        "prompt": tuple(map(Message.from_json, tree["prompt"])),
        "plain": tree.get("plain", False),
        "meta": tuple(sorted(tree.get("meta", {}).items())),
        "template_arguments": tree.get("template_arguments", ""),
    }
