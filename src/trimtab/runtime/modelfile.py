"""Ollama's Modelfile beside an exported GGUF file: the chat template in Go's words, stop words, parameters.

A template is a Jinja program and Ollama wants another language, so the frames around messages are read off what it
renders, put into Go's form, and compared with what it renders for other conversations. Where they disagree nothing is
written: Ollama then goes by the template in the GGUF file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab.errors import TrimtabError

Turns = Sequence[tuple[str, str]]  # (role, content)
Render = Callable[
    [Turns, bool], str
]  # a conversation as the chat template writes it, with the next answer's header or not
TEMPERATURE = 0.7  # that of trimtab's own answers
_SYSTEM, _USER, _ANSWER, _NEXT = "Zq-system-Zq", "Zq-user-Zq", "Zq-answer-Zq", "Zq-next-Zq"


@dataclass(frozen=True, slots=True)
class Frames:
    """What stands before and behind the messages of each role; `default` where the first is no system message, `header`
    before the answer to come."""

    default: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    header: str

    def render(self, turns: Turns) -> str:
        """A conversation with the header of the answer to come."""
        frames = {"system": self.system, "user": self.user, "assistant": self.assistant}
        text = "" if turns[0][0] == "system" else self.default
        return text + "".join(frames[role][0] + content + frames[role][1] for role, content in turns) + self.header

    def to_go(self) -> str:
        """The same as a template of Ollama's."""

        def text(words: str) -> str:
            return words.replace("{{", '{{ "{{" }}')

        branches = "".join(
            f'{{{{ {word} eq .Role "{role}" }}}}{text(frame[0])}{{{{ .Content }}}}{text(frame[1])}'
            for word, role, frame in (
                ("if", "system", self.system),
                ("else if", "user", self.user),
                ("else if", "assistant", self.assistant),
            )
        )
        default = f"{{{{ if not .System }}}}{text(self.default)}{{{{ end }}}}" if self.default else ""
        return f"{default}{{{{ range .Messages }}}}{branches}{{{{ end }}}}{{{{ end }}}}{text(self.header)}"


def frames_of(render: Render) -> Frames | None:
    """None where the chat template is more than frames around messages."""
    try:
        alone, alone_end = _around(render([("user", _USER)], True), (_USER,))
        start_to_system, system_to_user, user_to_answer, answer_to_user, end = _around(
            render([("system", _SYSTEM), ("user", _USER), ("assistant", _ANSWER), ("user", _NEXT)], True),
            (_SYSTEM, _USER, _ANSWER, _NEXT),
        )
        header = alone_end.removeprefix(_around(render([("user", _USER)], False), (_USER,))[1])
        user_close = user_to_answer.removesuffix(header)
        user_open = _common_end(system_to_user, answer_to_user).removeprefix(user_close)
        frames = Frames(
            default=alone.removesuffix(user_open),
            system=(start_to_system, system_to_user.removesuffix(user_open)),
            user=(user_open, user_close),
            assistant=(header, answer_to_user.removesuffix(user_open)),
            header=header,
        )
        return (
            frames
            if end == alone_end and all(render(turns, True) == frames.render(turns) for turns in _PROBES)
            else None
        )
    except (ValueError, TrimtabError):
        return None


_PROBES: tuple[Turns, ...] = (
    (("user", "Who?"),),
    (("system", "Be brief."), ("user", "Who?")),
    (("user", "Who?"), ("assistant", "Me."), ("user", "And 2 {{ x }}?")),
    (("system", "Be\nbrief."), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D"), ("user", "E")),
)


def _around(text: str, marks: Sequence[str]) -> list[str]:
    """The pieces of `text` around the marks. Raises ValueError where one is missing or out of order."""
    pieces = []
    for mark in marks:
        before, separator, text = text.partition(mark)
        if not separator:
            raise ValueError(mark)
        pieces.append(before)
    return [*pieces, text]


def _common_end(text: str, other: str) -> str:
    n = 0
    while n < min(len(text), len(other)) and text[-n - 1] == other[-n - 1]:
        n += 1
    return text[len(text) - n :]


def write(name: str, *, frames: Frames | None, stop_words: Sequence[str], context: int) -> str:
    """The text of a Modelfile for the file `name` beside it. `context` in tokens."""
    lines = [f"FROM ./{name}"]
    if frames is not None and '"""' not in frames.to_go():
        lines.append(f'TEMPLATE """{frames.to_go()}"""')
    lines += [f'PARAMETER stop "{_escaped(word)}"' for word in stop_words]
    lines += [f"PARAMETER temperature {TEMPERATURE}", f"PARAMETER num_ctx {context}"]
    return "\n".join(lines) + "\n"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
