"""The things that travel between rooms: frozen, small, with a JSON form each.

A pair is a type, never a position in a tensor. Text is `str`, token ids are tuples of `int`, lengths of answers are
characters unless a name says tokens.
"""

from trimtab.records.answers import Answer, Verdict
from trimtab.records.estimate import Direction, Estimate
from trimtab.records.json_form import compact_json, digest
from trimtab.records.pairs import Message, Pair, Ranked, Role, Unpaired
from trimtab.records.token_pair import Ranges, TokenPair

__all__ = [
    "Answer",
    "Direction",
    "Estimate",
    "Message",
    "Pair",
    "Ranges",
    "Ranked",
    "Role",
    "TokenPair",
    "Unpaired",
    "Verdict",
    "compact_json",
    "digest",
]
