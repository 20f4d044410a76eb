"""Human judging: serve two runs' answers blind, keep every choice, and say what they add up to."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from trimtab import store
from trimtab.errors import ConfigError, TrimtabError
from trimtab.judging.annotations import read_annotations
from trimtab.progress import Reporter
from trimtab.runtime.signals import stop_on_signal
from trimtab.studies.arena import ArenaServer, Session, in_order, words
from trimtab.studies.arena.choice_store import ChoiceStore
from trimtab.studies.arena.numbers import ArenaNumbers, numbers_of, rows
from trimtab.studies.arena.read import SharedPrompts, meet

ANONYMOUS = "anonymous"
_POLL_SECONDS = 0.2  # between looks for a signal: felt as at once, costs nothing


def main(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    benchmark_dir: str | None = None,
    out: str | None = None,
    port: int = 0,
    limit: int | None = None,
    seed: int = 0,
    name: str = ANONYMOUS,
    browser: bool = True,
    reporter: Reporter,
) -> ArenaNumbers:
    """Ask until all is judged, finished or stopped; write the verdicts.

    Raises StopError after a signal, with everything written.
    """
    judge = _judge(name)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} leaves nothing to judge", remedy="give at least 1, or leave it out")
    prompts = meet(a, b, benchmark=benchmark, benchmark_dir=benchmark_dir)
    path = Path(out) if out else _default_path(a, b, name)
    _require_own(path, prompts, judge)
    matches = in_order(prompts.matches, seed=seed, limit=limit)
    choice_store = ChoiceStore(judge)
    choices, skips = choice_store.earlier(matches)
    session = Session(matches, seed=seed, keeper=choice_store, choices=choices, skips=skips)

    def current_numbers(file: Path | None = None) -> ArenaNumbers:
        return numbers_of(session.outcomes(), names=prompts.names, judge=judge, file=file)

    if prompts.n_one_sided:
        reporter.say(f"arena: {prompts.n_one_sided} prompts were answered by one side only and are left out")
    with stop_on_signal() as stop:
        if session.n_open():
            server = ArenaServer(session, port=port, summary=lambda: words.page(current_numbers()))
            _serve(
                server, session, n_earlier=len(choices), browser=browser, is_over=lambda: bool(stop), reporter=reporter
            )
        annotations = rows(session.outcomes(), names=prompts.names, judge=judge)
        if annotations:
            store.write_json(path, annotations)
        if stop:
            result = f"verdicts are in {path}" if annotations else "nothing was judged"
            raise stop.error(f"{session.n_open()} of {len(matches)} prompts are left to judge; {result}")
    return current_numbers(path if annotations else None)


def _serve(
    server: ArenaServer,
    session: Session,
    *,
    n_earlier: int,
    browser: bool,
    is_over: Callable[[], bool],
    reporter: Reporter,
) -> None:
    with server.serve():
        earlier = f", {n_earlier} judged before" if n_earlier else ""
        reporter.say(f"arena: {session.n_open()} prompts to judge{earlier}; every choice is kept at once")
        reporter.say("open this address on this machine (Ctrl-C ends, the same command goes on):")
        reporter.say(server.url)
        if browser and _has_screen():
            Thread(target=webbrowser.open, args=(server.once,), daemon=True).start()
        while not is_over() and not server.done.wait(_POLL_SECONDS):
            pass
    if server.failed is not None:
        raise server.failed


def _has_screen() -> bool:
    """Without one a browser of text would take over the terminal that this runs in."""
    variables = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in variables)


def _judge(name: str) -> str:
    if not re.fullmatch(r"[\w.@+-]{1,64}", name):
        raise ConfigError(f"--name {name!r} is no name for a judge", remedy="use letters, digits and . @ + - _")
    return f"human:{name}"


def _default_path(a: str, b: str, name: str) -> Path:
    parts = [Path(re.sub(r"\.jsonl?(\.gz)?$", "", word)).parts for word in (a, b)]
    last = [part[-1:] for part in parts]
    words = ["-".join(part) for part in (last if last[0] != last[1] else [part[-2:] for part in parts])]
    sides = "-vs-".join(re.sub(r"[^\w.=+-]+", "-", word).strip("-.") or "run" for word in words)
    return Path("arena") / f"{sides}{'' if name == ANONYMOUS else '.' + name}.json"


def _require_own(path: Path, prompts: SharedPrompts, judge: str) -> None:
    """Only what these same answers and this same judge led to is written over."""
    if not path.exists():
        return
    own = {("\n\n".join(m.prompt), "\n\n".join(m.first), "\n\n".join(m.second)) for m in prompts.matches}
    try:
        verdicts = read_annotations(path).verdicts
        is_own = all(v.annotator == judge and (v.instruction, v.output_1, v.output_2) in own for v in verdicts)
    except TrimtabError:
        is_own = False
    if not is_own:
        raise ConfigError(f"{path} holds something else already", remedy="name another file with --out")
