"""Conversations as they grow: the user's turns, and the model's answers, each on disk the moment it is complete."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.progress import Advance, Figure, Reporter, printable
from trimtab.records import Message

_N_EXAMPLES = 3  # conversations without an answer that are named


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    """The text of one answer, its sampled tokens, and whether it ended by itself."""

    text: str
    n_tokens: int
    finished: bool


class Transcript:
    """The answers so far. Every answer goes to the log first, so memory never knows more than the disk.

    `own`: the conversations that this process answers.
    """

    def __init__(
        self,
        conversations: Sequence[tuple[str, ...]],
        own: Collection[int],
        *,
        log: store.JsonLines,
        before: Sequence[Mapping[str, Any]],
        contexts: Mapping[int, tuple[Message, ...]],
    ) -> None:
        self.conversations, self.own, self.log, self.contexts = conversations, own, log, contexts
        self.answers: list[list[TurnAnswer]] = [[] for _ in conversations]
        self.missing: dict[int, str] = {}  # conversation → why its next turn has no answer
        self.advance: Advance | None = None
        self.n_turns = sum(map(len, conversations))
        for row in before:
            if row["turn"] == len(self.answers[row["conversation"]]):
                self.answers[row["conversation"]].append(TurnAnswer(row["text"], row["n_tokens"], row["finished"]))

    @property
    def n_answers(self) -> int:
        return sum(map(len, self.answers))

    @property
    def longest(self) -> int:
        return max(map(len, self.conversations), default=0)

    def due(self, turn: int) -> dict[int, tuple[Message, ...]]:
        """The prompts of a turn that has no answer yet and whose earlier turns have theirs."""
        return {
            number: self._prompt(number)
            for number, turns in enumerate(self.conversations)
            if len(turns) > turn == len(self.answers[number]) and number in self.own and number not in self.missing
        }

    def n_after(self, turn: int) -> int:
        """Turns behind this one, of conversations that go on."""
        goes_on = (self.conversations[number] for number in self.own if number not in self.missing)
        return sum(max(0, len(turns) - turn - 1) for turns in goes_on)

    def _prompt(self, number: int) -> tuple[Message, ...]:
        turns, answers = self.conversations[number], self.answers[number]
        earlier = [
            message
            for turn, answer in zip(turns, answers, strict=False)
            for message in (Message("user", turn), Message("assistant", answer.text))
        ]
        return (*self.contexts.get(number, ()), *earlier, Message("user", turns[len(answers)]))

    def add(self, number: int, answer: TurnAnswer) -> None:
        self.log.append({"conversation": number, "turn": len(self.answers[number]), **asdict(answer)})
        self.answers[number].append(answer)
        if self.advance is not None:
            self.advance(1)

    def show(self, **figures: Figure) -> None:
        if self.advance is not None:
            self.advance(0, **figures)

    def take(self, answers: Mapping[int, list[TurnAnswer]], missing: Mapping[int, str]) -> None:
        """What another process has of its conversations."""
        self.missing |= missing
        for number, turns in answers.items():
            self.answers[number] = turns

    def leave_out(self, number: int, reason: str) -> None:
        """The conversation ends here: what comes next in it has no answer."""
        self.missing[number] = reason

    def report_missing(self, reporter: Reporter, description: str) -> None:
        if not self.missing:
            return
        reporter.say(f"{description}: {len(self.missing)} of {len(self.conversations)} prompts are not answered")
        for number, reason in list(self.missing.items())[:_N_EXAMPLES]:
            start = printable(self.conversations[number][len(self.answers[number])])[:60]
            reporter.say(
                f"  prompt {number + 1} ({start!r}), turn {len(self.answers[number]) + 1}: {printable(reason)}"
            )


def logs_of(answers: Path) -> list[Path]:
    """The logs of answers on their way to this file: one of each process that was at work on them."""
    return sorted(answers.parent.glob(f"{answers.stem}*.jsonl"))


@contextmanager
def open_transcript(
    answers: Path,
    conversations: Sequence[tuple[str, ...]],
    own: Collection[int],
    *,
    contexts: Mapping[int, tuple[Message, ...]],
    reporter: Reporter,
    description: str,
    name: str = "",
) -> Iterator[Transcript]:
    """The transcript with what an earlier, stopped run has in its logs, of however many processes. `answers`: where
    they will be; `name`: of this process's log, where there are several; `contexts`: what comes before a conversation's
    first turn, by its place, nothing where there is no entry."""
    rows = [row for log in logs_of(answers) for row in store.read_jsonl(log)]
    before = sorted(rows, key=lambda row: (row["conversation"], row["turn"]))
    with store.JsonLines(answers.with_suffix(f"{name}.jsonl"), keep=lambda _row: True) as lines:
        transcript = Transcript(conversations, own, log=lines, before=before, contexts=contexts)
        total = sum(len(conversations[number]) for number in own)
        n_answers = sum(len(transcript.answers[number]) for number in own)
        with reporter.track(description, total=total, unit="answers", n_done=n_answers) as transcript.advance:
            yield transcript
