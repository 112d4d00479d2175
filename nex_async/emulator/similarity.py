"""Which texts say nearly the same. Pure functions: no database, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from nex_async.emulator.search import words_of

__all__ = ["group_similar"]

_FIFTHS = 4
"""Two texts are near-duplicates when they share four fifths of the words that stand in either (Jaccard)."""


def group_similar(texts: Mapping[int, str]) -> list[list[int]]:
    """Return the groups of two and more near-duplicates, each led by its smallest key.

    A text joins the first group whose leader it resembles, so a chain of small changes does not swallow unlike texts.
    Only texts that share one of their rarest words are compared, which keeps a large workspace quick.
    """
    words = {key: frozenset(words_of(text)) for key, text in texts.items()}
    counts = Counter(word for each in words.values() for word in each)
    groups: dict[int, list[int]] = {}
    leaders: defaultdict[str, list[int]] = defaultdict(list)
    for key in sorted(words):
        rare = _rarest(words[key], counts)
        leader = _find_leader(words, key, rare, leaders)
        if leader is not None:
            groups[leader].append(key)
            continue
        groups[key] = [key]
        for word in rare:
            leaders[word].append(key)
    return [group for group in groups.values() if len(group) > 1]


def _rarest(words: frozenset[str], counts: Counter[str]) -> list[str]:
    """Return as many of the rarest words as two near-duplicates are bound to share one of."""
    ordered = sorted(words, key=lambda word: (counts[word], word))
    bound = -(-_FIFTHS * len(ordered) // 5)  # rounded up: fewer shared words cannot be enough
    return ordered[: len(ordered) - bound + 1]


def _find_leader(
    words: dict[int, frozenset[str]], key: int, rare: list[str], leaders: Mapping[str, list[int]]
) -> int | None:
    own = words[key]
    candidates = {leader for word in rare for leader in leaders.get(word, ())}
    return next((leader for leader in sorted(candidates) if _alike(own, words[leader])), None)


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    shared = len(one & other)
    return 5 * shared >= _FIFTHS * (len(one) + len(other) - shared)
