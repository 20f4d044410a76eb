"""Choices in the store that all verdicts share, so that no choice is lost and none is asked for twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trimtab import store
from trimtab.judging import verdict_cache
from trimtab.records import digest
from trimtab.studies.arena.matches import Choice, Match

FORMAT = 1  # raise when a stored choice means something else, so that older ones are not taken for it


class ChoiceStore:
    """Choices in the verdict cache, under a key that does not depend on which run was named first or shown left.

    The store is opened for each choice: requests come from several threads, and people are slow.
    """

    def __init__(self, judge: str) -> None:
        self._judge = judge

    def earlier(self, matches: Sequence[Match]) -> tuple[dict[str, Choice], set[str]]:
        """What this judge chose and skipped before, by `Match.content`."""
        by_key = {self._key(match): match for match in matches}
        with self._store() as verdicts:
            records, failures = verdicts.get(by_key), verdicts.failures(by_key)
        choices = {by_key[key].content: Choice.from_note(record.reply or {}) for key, record in records.items()}
        return choices, {by_key[key].content for key in failures}

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
