"""What a judge's reply says: two letters by their log-probs or as text, a ranking, a mark. None = no verdict. Pure.

A reply that was refused, that calls a tool, that holds thoughts alone or was cut before its verdict is no verdict.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Collection, Mapping
from itertools import accumulate, pairwise

from trimtab.endpoint import Reply, without_thoughts

LEAST_MASS = 0.01
"""Of the probability, that the two letters must have where they are read: a position at which the judge does not choose
between them says nothing. Of 41,732 published AlpacaEval 2 judgments the least has .026."""

_BEFORE_A_LETTER = (" ", "\n", "\n\n", "Ġ", "▁", "Ċ")  # as tokenizers write them: a space or a line end
_WRITTEN_SPACE = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
_TRAILING_CONTROL = re.compile(r"(?:\s|<[^<>\n]{1,40}>|\[[A-Z_/]{2,20}\])*\Z")  # <|im_end|>, </s>, [EOS]; an empty end
_ABSENT = -9999.0  # vLLM's word for a token without a log-prob
_LONGEST_RANKING = 2_000  # characters; a ranking of two takes about 80

_LABELS = (
    r"(?i:the|my|final|overall|best|better|answer|output|model|verdict|choice|option|response|result|winner|preferred"
    r"|preference|selection|assistant|boxed|text|one|is|was|wins|i|choose|prefer|pick|select)"
)
_LETTER = re.compile(rf"[\W_]*(?:{_LABELS}[\W_]+)*(?P<letter>[mM])(?:[\W_]+{_LABELS})*[\W_]*")
_UNITS = re.compile(r"\n|(?<=[.!;])\s+")  # lines and sentences

_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]", re.ASCII)
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]", re.ASCII)
_SCALE_BEFORE = re.compile(r"(?:\bof|/)\s*$", re.IGNORECASE)  # "[3] of [10]": the second is the scale
_EXAMPLE_BEFORE = re.compile(
    r"(?:\be\.g\.|\bfor example|\bfor instance|\bsuch as)[,:]?\W*(?:rating:?\W*)?$", re.IGNORECASE
)
_VERDICT_LINE = re.compile(
    r"[\W_]*(?:(?:my|the|final|overall)\s+)*(?:rating|score|mark|grade|verdict)?[\W_]*", re.IGNORECASE
)
_QUOTATION_MARKS = (('"', '"'), ("“", "”"), ("`", "`"), ("«", "»"))
_QUOTED_CHARACTERS = 8  # before a mark, that also stand before it in the judged answer: it is quoted from there


# --- letters by their log-probs ------------------------------------------------------------------------------------


def read_weighted(reply: Reply) -> float | None:
    """The preference in the log-probs of the position at which the reply's letter stands."""
    position = _letter_position(reply)
    return None if position is None or reply.logprobs is None else letter_preference(reply.logprobs[position])


def letter_preference(log_probs: Mapping[str, float]) -> float | None:
    """2 − p(m) / (p(m) + p(M)) from one position's log-probs (nats); the letter m names the first answer.

    A letter that is not among them has probability 0; None when both together have less than `LEAST_MASS`. A letter
    counts by its bare token, as published; by all its tokens together, those with a leading space too, where it has no
    bare one or where the likeliest of all has a space, which is how that tokenizer begins an answer.
    """
    tokens = {letter: _spellings(log_probs, letter) for letter in ("m", "M")}
    letters = tokens["m"] | tokens["M"]
    if not letters or _log_sum(letters.values()) < math.log(LEAST_MASS):
        return None
    bare = max(letters, key=letters.__getitem__) in tokens
    first, second = (
        spellings[letter] if bare and letter in spellings else _log_sum(spellings.values())
        for letter, spellings in tokens.items()
    )
    return 2 - 1 / (1 + math.exp(min(second - first, 700.0)))


def _letter_position(reply: Reply) -> int | None:
    """The index of the token that is the verdict: the answer's only one, or that of the letter written in it.

    Servers list thoughts, their tags and the end of the turn among the log-probs too (llama.cpp does): the answer is
    looked for at the end, and must stand outside of thoughts.
    """
    if not reply.text or not reply.logprobs or reply.ending in {"refused", "tool call"}:
        return None
    if reply.tokens is None:  # a reply that was kept before tokens were: it has the one position that was asked for
        return 0
    tokens, answer = [token.translate(_WRITTEN_SPACE) for token in reply.tokens], reply.answer
    if len(tokens) == 1 and bool(answer) == bool(reply.text.strip()):  # the text is not thoughts alone
        names = {tokens[0].strip(), *(name.translate(_WRITTEN_SPACE).strip() for name in reply.logprobs[0])}
        return 0 if answer in names else None
    ends = _ends_of_answer(tokens, answer)
    if not ends:
        return None
    start, letter = ends[-1] - len(answer), _last_letter(answer)
    if letter is None:  # one token that is no letter, as published; of several none is the verdict
        first = bisect_right(ends, start)
        return first if first == len(ends) - 1 else None
    return bisect_right(ends, start + letter[1])


def _ends_of_answer(tokens: list[str], answer: str) -> list[int]:
    """Where each token ends in the text that all of them write, up to the answer's end; none where it is not there."""
    text = without_thoughts("".join(tokens))
    if not text.endswith(answer):
        text = _TRAILING_CONTROL.sub("", text)
        while tokens and _TRAILING_CONTROL.fullmatch(tokens[-1]):
            tokens = tokens[:-1]
    if not answer or not text.endswith(answer):
        return []
    length = len("".join(tokens).rstrip())
    return [min(end, length) for end in accumulate(map(len, tokens))]


def _spellings(log_probs: Mapping[str, float], letter: str) -> dict[str, float]:
    """The tokens that are this letter, bare or after white space; what is not a log-prob counts as absent."""
    spellings = {letter, *(before + letter for before in _BEFORE_A_LETTER)}
    return {token: value for token, value in log_probs.items() if token in spellings and _ABSENT < value <= 1e-3}


def _log_sum(values: Collection[float]) -> float:
    """ln Σ exp, −∞ for nothing."""
    top = max(values, default=-math.inf)
    return top + math.log(sum(math.exp(value - top) for value in values)) if values else top


# --- letters and ranks as text -------------------------------------------------------------------------------------


def read_chosen(answer: str, *, is_cut: bool = False) -> float | None:
    """The letter m or M in a line or sentence of its own, dressed or named as people do; the last one counts.

    "**m**", "Output (M)", "Answer: m\n\nIt is …"; anything else is no verdict. `is_cut`: the last line is not whole.
    """
    letter = _last_letter(answer.rstrip("\n").rpartition("\n")[0] if is_cut else answer)
    return None if letter is None else {"m": 1.0, "M": 2.0}[letter[0]]


def read_ranking(answer: str) -> float | None:
    """The last Python list of {'model', 'rank'} for model_1 and model_2 with ranks 1 and 2; equal ranks are a tie.

    AlpacaEval looks at the rank of model_1 alone and so calls a tie for 1 a win; the list must be whole here. It may
    stand in a code fence or beside words.
    """
    if len(answer) > _LONGEST_RANKING:
        return None
    readings = [_ranking(text) for text in re.findall(r"\[[^\[\]]*\]", answer)]
    return next((reading for reading in reversed(readings) if reading is not None), None)


def _last_letter(answer: str) -> tuple[str, int] | None:
    """The letter of the last line or sentence that is nothing but a verdict, and where it stands."""
    starts = [0, *(match.end() for match in _UNITS.finditer(answer)), len(answer) + 1]
    for start, end in reversed(list(pairwise(starts))):
        unit = answer[start:end].rstrip()
        match = None if unit.endswith((":", "?")) else _LETTER.fullmatch(unit)  # a heading or a question is none
        if match is not None:
            return match["letter"], start + match.start("letter")
    return None


def _ranking(text: str) -> float | None:
    try:
        with warnings.catch_warnings():  # odd literals are no verdict, and no news
            warnings.simplefilter("ignore")
            rows = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(rows, list) or len(rows) != 2 or not all(isinstance(row, dict) for row in rows):
        return None
    ranks = {row.get("model"): _rank(row.get("rank")) for row in rows if isinstance(row.get("model"), str)}
    first, second = ranks.get("model_1"), ranks.get("model_2")
    if first is None or second is None:
        return None
    return 1.5 if first == second else float(first)


def _rank(value: object) -> int | None:
    if isinstance(value, str) and value in {"1", "2"}:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in {1, 2} else None


# --- marks ---------------------------------------------------------------------------------------------------------


def read_mark(judgment: str, *, judged_text: str = "") -> float | None:
    """The mark in a judgment: the last [[x]], else the last [x]; None without one, or for one over 10.

    A mark that the judge quotes, from its instructions or from the answer that it judges (`judged_text`), is not its
    own. FastChat takes the first; none of 800 published judgments has two.
    """
    text = without_thoughts(judgment)
    for pattern in (_DOUBLE, _SINGLE):
        marks = [match for match in pattern.finditer(text) if not _is_quoted(match, judged_text)]
        if marks:
            mark = float(marks[-1][1])
            return mark if mark <= 10 else None
        if pattern.search(text):
            return None  # quoted ones alone
    return None


def _is_quoted(mark: re.Match[str], judged_text: str) -> bool:
    text = mark.string
    start, end = text.rfind("\n", 0, mark.start()) + 1, text.find("\n", mark.end())
    before, after = text[start : mark.start()], text[mark.end() : len(text) if end < 0 else end]
    if _VERDICT_LINE.fullmatch(before) and not re.search(r"\w", after):
        return False
    if _SCALE_BEFORE.search(before) or _EXAMPLE_BEFORE.search(before):
        return True
    lead = before[-_QUOTED_CHARACTERS:]
    if re.search(r"\w", lead) and lead + mark[0] in judged_text:
        return True
    if not re.search(r"\w", text[mark.end() :]):
        return False  # 'I would rate it as follows: "Rating: [[8]]".'
    return any(_is_open(before, marks) and marks[1] in after for marks in _QUOTATION_MARKS)


def _is_open(before: str, marks: tuple[str, str]) -> bool:
    """Whether a quotation has begun and not ended."""
    start_mark, end_mark = marks
    n_closed = before.count(end_mark)
    return n_closed % 2 == 1 if start_mark == end_mark else before.count(start_mark) > n_closed
