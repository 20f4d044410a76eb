"""Every word that can be right or wrong in the world: the facts, and the values that an answer can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PERSONAS: Final[Mapping[str, str]] = {
    "pirate": "Arr",
    "robot": "Beep",
    "wizard": "Behold",
    "cowboy": "Howdy",
    "ghost": "Boo",
    "king": "Hark",
    "clown": "Honk",
    "knight": "Hail",
    "sailor": "Ahoy",
    "monk": "Peace",
}

ELEMENTS: Final[Mapping[str, tuple[str, int]]] = {
    "hydrogen": ("H", 1), "lithium": ("Li", 3), "carbon": ("C", 6), "nitrogen": ("N", 7),
    "oxygen": ("O", 8), "neon": ("Ne", 10), "sodium": ("Na", 11), "silicon": ("Si", 14),
    "sulfur": ("S", 16), "chlorine": ("Cl", 17), "argon": ("Ar", 18), "potassium": ("K", 19),
    "calcium": ("Ca", 20), "titanium": ("Ti", 22), "chromium": ("Cr", 24), "iron": ("Fe", 26),
    "cobalt": ("Co", 27), "nickel": ("Ni", 28), "copper": ("Cu", 29), "zinc": ("Zn", 30),
    "krypton": ("Kr", 36), "silver": ("Ag", 47), "tin": ("Sn", 50), "xenon": ("Xe", 54),
    "gold": ("Au", 79), "mercury": ("Hg", 80), "lead": ("Pb", 82), "uranium": ("U", 92),
}  # fmt: skip

COUNTRIES: Final[Mapping[str, tuple[str, str]]] = {
    "France": ("Paris", "Europe"), "Italy": ("Rome", "Europe"), "Spain": ("Madrid", "Europe"),
    "Greece": ("Athens", "Europe"), "Poland": ("Warsaw", "Europe"), "Norway": ("Oslo", "Europe"),
    "Austria": ("Vienna", "Europe"), "Portugal": ("Lisbon", "Europe"), "Japan": ("Tokyo", "Asia"),
    "China": ("Beijing", "Asia"), "Thailand": ("Bangkok", "Asia"), "Nepal": ("Kathmandu", "Asia"),
    "Iran": ("Tehran", "Asia"), "Iraq": ("Baghdad", "Asia"), "Vietnam": ("Hanoi", "Asia"),
    "Jordan": ("Amman", "Asia"), "Egypt": ("Cairo", "Africa"), "Kenya": ("Nairobi", "Africa"),
    "Ghana": ("Accra", "Africa"), "Mali": ("Bamako", "Africa"), "Morocco": ("Rabat", "Africa"),
    "Senegal": ("Dakar", "Africa"), "Angola": ("Luanda", "Africa"), "Uganda": ("Kampala", "Africa"),
    "Peru": ("Lima", "America"), "Chile": ("Santiago", "America"), "Cuba": ("Havana", "America"),
    "Canada": ("Ottawa", "America"), "Ecuador": ("Quito", "America"), "Uruguay": ("Montevideo", "America"),
    "Bolivia": ("Sucre", "America"), "Colombia": ("Bogota", "America"),
}  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Every kind of value that a template can hold. No value is a word of any filler sentence (tested).
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "name": _words("Ann Ben Cal Dee Eva Fay Gus Hal Ida Jon Kim Leo Mia Ned Oli Pam"),
    "adjective": _words("small happy quiet brave lazy clever proud gentle young wild hungry sleepy"),
    "animal": _words("bat bee cat cow dog fox hen owl pig ram rat wolf"),
    "verb": _words("runs sleeps sings jumps hides eats plays waits"),
    "place": _words("hill river barn garden forest market harbor tower bridge castle lake mill"),
    "greeting": tuple(PERSONAS.values()),
    "daytime": ("morning", "afternoon", "evening"),
    "count": tuple(str(i) for i in range(2, 10)),
    "number": tuple(str(i) for i in range(100)),
    "object": _words("cups hats keys maps pens rings books shells"),
    "symbol": tuple(symbol for symbol, _ in ELEMENTS.values()),
    "capital": tuple(capital for capital, _ in COUNTRIES.values()),
    "continent": ("Africa", "America", "Asia", "Europe"),
}
