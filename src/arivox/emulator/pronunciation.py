"""Words a recogniser has in its dictionary, and how to say those it has not.

Phones are those of the CMU Pronouncing Dictionary, without stress.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_WORD: Final = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*'?")
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SHORTEST_PART: Final = 3
_VOICELESS: Final = frozenset({"P", "T", "K", "F", "TH", "S", "SH", "CH", "HH"})
_SIBILANTS: Final = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})

# Longest first; a word that no better rule knows is read letter group by letter group.
_LETTERS: Final = {
    "tion": "SH AH N", "sion": "ZH AH N", "ough": "AO", "igh": "AY", "tch": "CH", "dge": "JH",
    "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "kn": "N",
    "wr": "R", "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW", "ai": "EY", "ay": "EY",
    "ey": "IY", "ie": "IY", "oi": "OY", "oy": "OY", "au": "AO", "aw": "AO", "er": "ER", "ir": "ER",
    "ur": "ER", "ar": "AA R", "or": "AO R", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F",
    "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P",
    "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
_GROUPS: Final = re.compile("|".join(sorted(_LETTERS, key=len, reverse=True)))


def words(text: str) -> tuple[str, ...]:
    """Return the words of ``text`` in small letters, without punctuation and with numbers written out."""
    found = _WORD.findall(text.lower().replace("’", "'"))
    return tuple(part for word in found for part in _spelled(word))


def pronounce(word: str, lookup: Callable[[str], str | None]) -> str:
    """Return the phones of ``word``, parted by spaces; ``lookup`` is the dictionary.

    What is not in it is put together: ``tooth`` and ``ache``, ``whiten`` and an ending, and at last the
    letters. Returns ``""`` for a word that has a character which is neither ``a`` to ``z`` nor an apostrophe.
    """
    return lookup(word) or _inflected(word, lookup) or _compound(word, lookup) or _by_letters(word)


def _spelled(word: str) -> list[str]:
    if not word.isdigit():
        return [word]
    number = int(word)
    if len(word) > 2 or (len(word) == 2 and word[0] == "0"):
        return [_ONES[int(digit)] for digit in word]
    if number < len(_ONES):
        return [_ONES[number]]
    tens, ones = divmod(number, 10)
    return [_TENS[tens], _ONES[ones]] if ones else [_TENS[tens]]


def _inflected(word: str, lookup: Callable[[str], str | None]) -> str:
    for ending in ("'s", "es", "s", "ing", "ed", "er", "ly"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < _SHORTEST_PART:
            continue
        phones = lookup(stem) or (lookup(stem + "e") if ending in {"ing", "ed", "er"} else None)
        if phones:
            return f"{phones} {_ending(ending, phones.split()[-1])}"
    return ""


def _ending(ending: str, last: str) -> str:
    if ending in {"'s", "es", "s"}:
        return "IH Z" if last in _SIBILANTS else "S" if last in _VOICELESS else "Z"
    if ending == "ed":
        return "IH D" if last in {"T", "D"} else "T" if last in _VOICELESS else "D"
    return {"ing": "IH NG", "er": "ER", "ly": "L IY"}[ending]


def _compound(word: str, lookup: Callable[[str], str | None]) -> str:
    places = range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1)
    for place in sorted(places, key=lambda place: abs(2 * place - len(word))):
        first, second = lookup(word[:place]), lookup(word[place:])
        if first and second:
            return f"{first} {second}"
    return ""


def _by_letters(word: str) -> str:
    letters = re.sub(r"(.)\1", r"\1", word.replace("'", ""))
    if not re.fullmatch("[a-z]+", letters):
        return ""
    if len(letters) > 3 and letters.endswith("e"):
        letters = letters[:-1]
    return " ".join(_LETTERS[group] for group in _GROUPS.findall(letters))
