"""Human judging: serve two runs' answers blind, keep every choice, and say what they add up to."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from trimtab import store
from trimtab.errors import ConfigError, TrimtabError
from trimtab.judging import verdict_cache
from trimtab.judging.annotations import read_annotations
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime.signals import stop_on_signal
from trimtab.studies.arena import ArenaServer, Choice, Match, Session, in_order
from trimtab.studies.arena import numbers as arena_result
from trimtab.studies.arena.contestants import Meeting, meet

ANONYMOUS = "anonymous"
FORMAT = 1  # raise when a stored choice means something else, so that older ones are not taken for it
_POLL_SECONDS = 0.2


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
) -> dict[str, Any]:
    """Ask until all is judged, finished or stopped; write the verdicts. The keys are `arena_result.result`'s + `file`.

    Raises StopError after a signal, with everything written.
    """
    judge = _judge(name)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} leaves nothing to judge", remedy="give at least 1, or leave it out")
    meeting = meet(a, b, benchmark=benchmark, benchmark_dir=benchmark_dir)
    path = Path(out) if out else _default_path(a, b, name)
    _require_own(path, meeting, judge)
    matches = in_order(meeting.matches, seed=seed, limit=limit)
    keeper = LedgerKeeper(judge)
    chosen, skipped = keeper.earlier(matches)
    session = Session(matches, seed=seed, keeper=keeper, chosen=chosen, skipped=skipped)

    def told() -> dict[str, Any]:
        return arena_result.result(session.outcomes(), names=meeting.names, judge=judge)

    if meeting.n_one_sided:
        reporter.say(f"arena: {meeting.n_one_sided} prompts were answered by one side only and are left out")
    with stop_on_signal() as stop:
        if session.n_open():
            server = ArenaServer(session, port=port, summary=lambda: arena_result.page(told()))
            _serve(server, session, chosen=chosen, browser=browser, stopped=lambda: bool(stop), reporter=reporter)
        rows = arena_result.rows(session.outcomes(), names=meeting.names, judge=judge)
        if rows:
            store.write_json(path, rows)
        if stop:
            where = f"verdicts are in {path}" if rows else "nothing was judged"
            raise stop.error(f"{session.n_open()} of {len(matches)} prompts are left to judge; {where}")
    return told() | {"file": str(path) if rows else None}


def lines(told: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    partly = " with --allow-missing" if told["skipped"] or told["not_reached"] else ""
    file = [f"verdicts: {told['file']}   (trimtab winrate reads it{partly})"] if told["file"] else []
    return [arena_result.headline(told), *arena_result.details(told), *file]


class LedgerKeeper:
    """Choices in the verdict store, under a key that does not depend on which run was named first or shown left.

    The store is opened for each choice: requests come from several threads, and people are slow.
    """

    def __init__(self, judge: str) -> None:
        self._judge = judge

    def earlier(self, matches: Sequence[Match]) -> tuple[dict[str, Choice], set[str]]:
        """What this judge chose and skipped before, by `Match.content`."""
        by_key = {self._key(match): match for match in matches}
        with self._store() as verdicts:
            kept, failed = verdicts.get(by_key), verdicts.failures(by_key)
        chosen = {by_key[key].content: Choice.from_note(one.reply or {}) for key, one in kept.items()}
        return chosen, {by_key[key].content for key in failed}

    def keep(self, match: Match, choice: Choice, /) -> None:
        with self._store() as verdicts:
            verdicts.put(
                self._key(match),
                judge=self._judge,
                subject=match.prompt_id[:200],
                value=choice.value,
                reply=choice.note(),
                seconds=choice.seconds,
            )

    def skip(self, match: Match, /) -> None:
        with self._store() as verdicts:
            verdicts.fail(
                self._key(match),
                judge=self._judge,
                subject=match.prompt_id[:200],
                kind="skipped",
                message="skipped by the person who judged",
                attempts=1,
            )

    def forget(self, match: Match, /) -> None:
        with self._store() as verdicts:
            verdicts.forget(self._key(match))

    def _key(self, match: Match) -> str:
        return digest({"arena": FORMAT, "judge": self._judge, "match": match.content})

    @contextmanager
    def _store(self) -> Iterator[verdict_cache.VerdictCache]:
        with store.database(verdict_cache.verdict_cache_path()) as connection:
            yield verdict_cache.VerdictCache(connection)


def _serve(
    server: ArenaServer,
    session: Session,
    *,
    chosen: Mapping[str, Choice],
    browser: bool,
    stopped: Callable[[], bool],
    reporter: Reporter,
) -> None:
    with server.running():
        earlier = f", {len(chosen)} judged before" if chosen else ""
        reporter.say(f"arena: {session.n_open()} prompts to judge{earlier}; every choice is kept at once")
        reporter.say("open this address on this machine (Ctrl-C ends, the same command goes on):")
        reporter.say(server.url)
        if browser and _has_screen():
            Thread(target=webbrowser.open, args=(server.once,), daemon=True).start()
        while not stopped() and not server.done.wait(_POLL_SECONDS):
            pass
    if server.failed is not None:
        raise server.failed


def _has_screen() -> bool:
    """Without one a browser of text would take over the terminal that this runs in."""
    told = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in told)


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


def _require_own(path: Path, meeting: Meeting, judge: str) -> None:
    """Only what these same answers and this same judge led to is written over."""
    if not path.exists():
        return
    own = {("\n\n".join(m.asked), "\n\n".join(m.first), "\n\n".join(m.second)) for m in meeting.matches}
    try:
        there = read_annotations(path).verdicts
        same = all(one.annotator == judge and (one.instruction, one.output_1, one.output_2) in own for one in there)
    except TrimtabError:
        same = False
    if not same:
        raise ConfigError(f"{path} holds something else already", remedy="name another file with --out")
