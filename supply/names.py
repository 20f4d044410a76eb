"""Counts bound names that say nothing of the thing they name: participles and pronouns (`told`, `seen`, `one`).

    python supply/names.py                  the share in src/, the commonest names and where they stand
    python supply/names.py --check          for CI: fails above the limit, and on a name that is never allowed
    python supply/names.py --list PATH …    every such name of these files, a line each

A bound name is a variable, parameter, loop or `with` target, import alias, function or class. It is vague when what is
left of it without underscores and its shape suffix (`held_R`) is one such word. Words that end in -ing or -ed and are
the field's nouns (`training`, `seed`) stand in NOUNS.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.01

NEVER_WORDS = """
told one seen found wanted said met saw asked known shown kept heard spoken taken given gone drawn laid meant
those these this that it they them which who what whose
"""
PRONOUN_WORDS = """
one ones some any each every other others another both few many much most least none all rest same such this that
these those it its they them their he she who whom whose which what something anything everything nothing someone
anyone everyone mine ours yours here there where when how why whether
"""
PARTICIPLE_WORDS = """
begun bound broken brought built bought caught come cut dealt done drawn driven eaten fallen felt forgotten found
fought forbidden forgiven given gone got gotten grown had heard held hidden hit kept known laid led left lent lain
lost made meant met paid ridden risen said seen sent shown shut slain spoken spent stood stuck sworn taken
taught told thought thrown torn understood undone unread unset worn written saw took went came gave knew did began
became ran spoke wrote
"""
NOUN_WORDS = """
hidden seed seeds speed feed need needs bed embed unembed id word thread head spread read embedded rejected chosen
training screening shrinking packing padding sampling judging encoding decoding embedding embeddings warning
warnings heading headings setting settings string strings ring thing spelling ranking timing timings rating ratings
checkpointing recording recordings reading readings meaning wording ending endings building parsing reporting
scoring ceiling missing pooling routing spacing opening beginning finding findings grouping handling labelling
marking pairing grading packed quantized interleaved bring red aligned unaligned saving
"""
NEVER = frozenset(NEVER_WORDS.split())
PRONOUNS = frozenset(PRONOUN_WORDS.split())
PARTICIPLES = frozenset(PARTICIPLE_WORDS.split())
NOUNS = frozenset(NOUN_WORDS.split())


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every binding with its line; a name bound twice counts twice."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, getattr(node, "lineno", 0)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case _:
                pass


def stem(name: str) -> str:
    """The name without underscores at its ends and without its shape suffix."""
    word = name.strip("_")
    head, _, suffix = word.rpartition("_")
    return (head if head and suffix.isupper() and not head.isupper() else word).lower()


def is_vague(name: str) -> bool:
    word = stem(name)
    if word in NOUNS or name.startswith("__"):
        return False
    if word in PRONOUNS or word in NEVER or word in PARTICIPLES:
        return True
    if "_" in word or len(word) < 5:
        return False
    return word.endswith(("ed", "ing"))


def sources(paths: list[Path]) -> list[Path]:
    return sorted(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / "src"])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    total, vague = 0, Counter[str]()
    forbidden = []
    for path in sources(arguments.paths):
        for name, line in bound_names(ast.parse(path.read_text(encoding="utf-8"))):
            total += 1
            if is_vague(name):
                vague[name] += 1
                if arguments.list:
                    print(f"{path}:{line}: {name}")
                if stem(name) in NEVER:
                    forbidden.append(f"{path}:{line}: {name}")
    n_vague = sum(vague.values())
    share = n_vague / max(total, 1)
    print(f"{n_vague:,} of {total:,} bound names are participles or pronouns: {share:.2%} (at most {LIMIT:.0%})")
    print("commonest: " + ", ".join(f"{name} {n}" for name, n in vague.most_common(20)))
    if arguments.check and (forbidden or share > LIMIT):
        print("\n".join(forbidden[:40]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
