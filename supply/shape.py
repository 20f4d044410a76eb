"""What the house is made of, in figures: signatures without types, complexity, lines.

    python supply/shape.py            the table, with the worst of each
    python supply/shape.py --list     and every untyped signature, a line each

A signature is untyped when `Any`, a dict or a Mapping with string keys stands in it. Complexity is radon's, which
counts boolean operators and comprehensions too.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from radon.complexity import cc_visit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "trimtab"
OUTER = ("stages", "commands", "reporting", "studies", "runtime")
UNTYPED = re.compile(r"\bAny\b|\b(dict|Mapping|MutableMapping)\[str\b|\b(dict|Mapping)\b(?!\[)")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_untyped(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """`to_json` and `from_json` are the edge, where a tree is what is asked for."""
    if function.name in {"to_json", "from_json"}:
        return False
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [p.annotation for p in parameters if p is not None and p.annotation is not None]
    annotations += [function.returns] if function.returns is not None else []
    return any(UNTYPED.search(ast.unparse(annotation)) for annotation in annotations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    n_all = n_untyped = 0
    for room in OUTER:
        n_room = n_bad = 0
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for function in functions(path):
                n_room += 1
                if is_untyped(function):
                    n_bad += 1
                    if arguments.list:
                        print(f"{path.relative_to(ROOT)}:{function.lineno}: {function.name}")
        n_all, n_untyped = n_all + n_room, n_untyped + n_bad
        print(f"{room:12} {n_bad:4} of {n_room:4} signatures untyped ({n_bad / max(n_room, 1):.0%})")
    print(f"{'together':12} {n_untyped:4} of {n_all:4} ({n_untyped / max(n_all, 1):.1%}, at most 8 %)")
    files = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    blocks = [(path, block) for path, text in files.items() for block in cc_visit(text)]
    mean = sum(block.complexity for _, block in blocks) / len(blocks)
    print(f"complexity: mean {mean:.2f} (at most 3.2), worst:")
    functions_only = [(block.complexity, path, block) for path, block in blocks if not hasattr(block, "methods")]
    for complexity, path, block in sorted(functions_only, key=lambda entry: -entry[0])[:12]:
        print(f"  {complexity:3} {path.relative_to(ROOT)}:{block.lineno} {block.name}")
    lengths = sorted(((text.count("\n"), path) for path, text in files.items()), reverse=True)
    print(f"lines: {sum(n for n, _ in lengths):,} in {len(lengths)} files (at most 27,000); longest:")
    print("\n".join(f"  {n:4} {path.relative_to(ROOT)}" for n, path in lengths[:5]))


if __name__ == "__main__":
    main()
