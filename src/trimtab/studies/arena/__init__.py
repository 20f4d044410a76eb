"""Human judging: a blind choice between two answers, on one local page.

`matches` says what is asked, in which order and on which side; `session` holds what was chosen and what is left;
`server` shows it to one browser on this machine. None of them knows where verdicts are kept or what they add up to:
both are handed in.
"""

from trimtab.studies.arena.matches import PICKS, Choice, Match, Pick, in_order
from trimtab.studies.arena.server import ArenaServer
from trimtab.studies.arena.session import Outcome, Session, StaleError

__all__ = ["PICKS", "ArenaServer", "Choice", "Match", "Outcome", "Pick", "Session", "StaleError", "in_order"]
