"""What a text mentions and says, by plain rules. Pure functions: no database, no clock.

- An email address names a person. Their name is the one written before it ("Ada Park <ada@x.io>"), else it is made
  from the part before the @. The domain of the address names a company, unless it is a mail provider.
- A domain in the text names a company.
- One to three words that begin with capitals may name a person or company the workspace knows.
- A sentence with words of a kind of insight is an insight of that kind; the kind with most of its words wins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

__all__ = ["Mention", "Sentence", "classify", "company_name", "read_sentences"]

_MOST_CHARACTERS = 100_000
_LONGEST_SENTENCE = 1_000
_BREAK = re.compile(r"(?<=[.!?])\s+|[\r\n]+")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,20})")
_DOMAIN = re.compile(
    r"(?<![\w@./-])((?:[a-z0-9-]{1,63}\.){1,3}(?:com|io|ai|org|net|co|dev|app|eu|de|uk|fr|us|tech|example))(?![\w@-])",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"((?:[^\W\d_][\w'-]*\s+){0,2}[^\W\d_][\w'-]*)\s*[<(\[]?\s*$")
_CAPITALISED = re.compile(r"[^\W\d_a-z][\w'&-]*(?:\s+[^\W\d_a-z][\w'&-]*){0,5}")

_PROVIDERS = frozenset({"gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "yahoo.com", "icloud.com"})

_KINDS: dict[str, tuple[str, ...]] = {
    "opportunity": ("demo", "interested", "upsell", "expand", "expansion", "budget", "proposal", "pricing", "trial"),
    "risk": ("risk", "churn", "cancel", "unhappy", "delay", "delayed", "blocked", "concern", "concerned", "left"),
    "milestone": ("signed", "launched", "closed", "raised", "completed", "renewed", "shipped", "won", "joined"),
    "commitment": ("will", "promised", "committed", "agreed", "follow", "send", "deadline", "schedule", "scheduled"),
    "preference": ("prefers", "prefer", "likes", "wants", "favors", "favours", "rather"),
    "goal": ("goal", "plans", "plan", "aims", "target", "objective"),
    "pain_point": ("problem", "struggling", "struggles", "frustrated", "slow", "manual", "painful", "difficult"),
    "requirement": ("needs", "need", "requires", "require", "must", "required"),
    "constraint": ("limit", "limited", "cannot", "unable", "restricted", "freeze"),
    "relationship": ("introduced", "reports", "partner", "partnership", "works", "knows", "met"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_WORD = re.compile(r"[^\W\d_]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Mention:
    """Somebody or something a sentence names: by `email`, by `domain`, or only by `name`."""

    name: str = ""
    email: str = ""
    domain: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence and whom it mentions."""

    text: str
    mentions: tuple[Mention, ...]


def read_sentences(content: str) -> Iterator[Sentence]:
    """Yield the sentences of the first 100 000 characters; each is cut at 1 000."""
    for piece in _BREAK.split(content[:_MOST_CHARACTERS]):
        text = piece.strip()[:_LONGEST_SENTENCE]
        if text:
            yield Sentence(text, tuple(dict.fromkeys(_mentions(text))))


def _mentions(text: str) -> Iterator[Mention]:
    for match in _EMAIL.finditer(text):
        email, domain = match[0].lower(), match[1].lower()
        if domain not in _PROVIDERS:  # the company first, so that the person can be given it
            yield Mention(domain=domain)
        yield Mention(name=_name_before(text[: match.start()], email), email=email)
    for match in _DOMAIN.finditer(text):
        domain = match[1].lower().removeprefix("www.")
        if domain not in _PROVIDERS:
            yield Mention(domain=domain)
    for match in _CAPITALISED.finditer(text):
        words = match[0].split()
        for start in range(len(words)):
            for size in (3, 2, 1):
                if start + size <= len(words):
                    yield Mention(name=" ".join(words[start : start + size]).removesuffix("'s"))


def _name_before(text: str, email: str) -> str:
    """Return the name written right before an address, else one made from the address."""
    match = _NAME_BEFORE.search(text[-80:])
    words = match[1].split() if match else []
    while words and not words[0][0].isupper():
        words.pop(0)
    if len(words) >= 2 and all(word[0].isupper() for word in words):
        return " ".join(words)
    local = re.split(r"[._+-]+", email.partition("@")[0])
    return " ".join(part.capitalize() for part in local if part)


def company_name(domain: str) -> str:
    """Return a name for the company behind a domain: `techflow.io` is Techflow."""
    labels = domain.split(".")
    label = labels[-3] if len(labels) > 2 and labels[-2] in ("co", "com", "org") else labels[-2]
    return label.replace("-", " ").title()


def classify(text: str) -> tuple[str, float] | None:
    """Return the kind of insight a sentence is and the confidence in it (0.6 to 0.95), or None."""
    counts: dict[str, int] = {}
    for word in _WORD.findall(text.lower()):
        kind = _KIND_OF.get(word)
        if kind is not None:
            counts[kind] = counts.get(kind, 0) + 1
    if not counts:
        return None
    kind = max(counts, key=lambda each: counts[each])
    return kind, min(0.5 + 0.1 * counts[kind], 0.95)
