"""Writes one children's story: a plot (plots.py) filled from the word lists (words.py)."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import words
from plots import PLOTS, Plot

MIN_WORDS, MAX_WORDS = 60, 180

SHE = {"he": "she", "him": "her", "his": "her"}
HE = {"he": "he", "him": "him", "his": "his"}


@dataclass(frozen=True)
class Request:
    """What a story must contain; None leaves the choice to the dice."""

    kind: str | None = None
    trait: str | None = None
    name: str | None = None
    plot: Plot | None = None
    noun: str | None = None


@dataclass(frozen=True)
class Story:
    """A finished story and the values that filled it (so that a chat can ask for them)."""

    text: str
    plot: Plot
    values: dict[str, str]


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" in front.

    >>> article("owl"), article("red kite")
    ('an owl', 'a red kite')
    """
    return ("an " if phrase[0].lower() in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def pick_name(rng: random.Random, pool: list[str], taken: str | None, invented: float = 0.12) -> str:
    """A name from `pool` other than `taken`, or with probability `invented` one made of two syllables."""
    while True:
        if rng.random() < invented:  # an invented name, so that the model learns to copy any name
            name = rng.choice(words.SYLLABLES_FIRST) + rng.choice(words.SYLLABLES_LAST)
        else:
            name = rng.choice(pool)
        if name != taken:
            return name


def _character(rng: random.Random, kind: str | None, name: str | None, taken: str | None) -> dict[str, str]:
    """A character: name, kind, trait, pronouns. Girls are she, boys are he, a name keeps its pronoun."""
    if kind is None:
        dice = rng.random()
        kind = rng.choice(words.CHILDREN if dice < 0.14 else words.ROLES if dice < 0.24 else words.ANIMALS)
    if kind in words.FEMALE or (name in words.GIRL_NAMES and kind not in words.MALE):
        female = True
    elif kind in words.MALE or name in words.BOY_NAMES:
        female = False
    else:
        female = rng.random() < 0.5
    name = name or pick_name(rng, words.GIRL_NAMES if female else words.BOY_NAMES, taken)
    return {"name": name, "kind": kind, "trait": rng.choice(words.TRAITS), **(SHE if female else HE)}


OPENINGS = (
    (7, "Once upon a time, there was {a_trait} {kind} named {H} who lived {home}."),
    (4, "Once upon a time, there lived {a_trait} {kind} named {H} {home}."),
    (3, "Once upon a time, {a_trait} {kind} named {H} lived {home}."),
    (2, "Once upon a time, {home}, there was {a_trait} {kind}. {His} name was {H}."),
    (1, "Long ago, {a_trait} {kind} named {H} lived {home}."),
    (1, "There once was {a_trait} {kind} named {H} who lived {home}."),
    (1, "{H} was {a_trait} {kind} who lived {home}."),
    (1, "The {trait} {kind} {H} lived {home}."),
    (1, "Far away, {home}, lived {a_trait} {kind} named {H}."),
)
DETAILS = (
    "{He} loved {hobby}.",
    "More than anything, {he} liked {hobby}.",
    "Every day, {he} spent hours {hobby}.",
    "Everyone knew {him}, for {he} was always {hobby}.",
    "{His} favourite thing in the world was {hobby}.",
)
CLOSINGS = (
    "That evening, {H} went back to {hobby}.",
    "And {home}, everyone still tells this story.",
    "And so the day ended well for the {trait} {kind}.",
    "{H} fell asleep with a smile.",
    "And if you listen closely, you can still hear {H} and {his} friends laugh.",
    "And they all lived happily ever after.",
    "The end.",
    "It was a day that {H} would never forget.",
)


def _values(rng: random.Random, request: Request, plot: Plot) -> dict[str, str]:
    hero = _character(rng, request.kind, request.name, None)
    hero["trait"] = request.trait or hero["trait"]
    friend = _character(rng, None, None, hero["name"])
    while friend["kind"] == hero["kind"]:
        friend = _character(rng, None, None, hero["name"])
    noun = request.noun or rng.choice(plot.things or words.THINGS)
    elder = rng.choice([e for e in words.ELDERS if e not in (hero["kind"], friend["kind"])])
    introduction = f"{article(friend['trait'])} {friend['kind']} named {friend['name']}"
    values = {
        "H": hero["name"],
        "kind": hero["kind"],
        "trait": hero["trait"],
        "a_trait": article(hero["trait"]),
        "he": hero["he"],
        "him": hero["him"],
        "his": hero["his"],
        "He": capital(hero["he"]),
        "His": capital(hero["his"]),
        "F": friend["name"],
        "fkind": friend["kind"],
        "fhe": friend["he"],
        "fhim": friend["him"],
        "fhis": friend["his"],
        "friend": introduction,
        "Friend": capital(introduction),
        "elder": f"the old {elder}",
        "Elder": f"The old {elder}",
        "an_elder": f"an old {elder}",
        "thing": f"{rng.choice(words.COLOURS)} {noun}",
        "noun": noun,
        "home": rng.choice(words.HOMES),
        "spot": rng.choice(words.SPOTS),
        "hobby": rng.choice(words.HOBBIES),
        "food": rng.choice(words.FOODS),
        "weather": rng.choice(words.WEATHERS),
    }
    if plot.choices:
        values.update(zip(plot.names, rng.choice(plot.choices), strict=True))
    return values


def _polish(text: str, elder: str) -> str:
    """Articles before vowels; "an old owl" is "the old owl" from the second mention on."""
    text = re.sub(r"\b([Aa]) (?=[aeiou])(?!uni)", r"\1n ", text)
    head, first, tail = text.partition(f"an old {elder}")
    text = head + first + tail.replace(f"an old {elder}", f"the old {elder}")
    if elder.startswith("grand"):
        text = text.replace(f"an old {elder}", f"a kind {elder}").replace(f"old {elder}", f"kind {elder}")
    return text


def write_story(rng: random.Random, request: Request | None = None) -> Story:
    """One story of 60 to 180 words that contains what `request` asks for."""
    request = request or Request()
    while True:
        plot = request.plot or rng.choice([p for p in PLOTS if _fits(p, request.noun)])
        values = _values(rng, request, plot)
        opening = rng.choices([text for _, text in OPENINGS], [weight for weight, _ in OPENINGS])[0]
        paragraphs = [[rng.choice(slot) for slot in paragraph] for paragraph in plot.paragraphs]
        paragraphs[0].insert(0, opening)
        if rng.random() < 0.8:
            paragraphs[0].insert(1, rng.choice(DETAILS))
        if rng.random() < 0.2:
            paragraphs[-1].pop()
        if plot.name not in ("storm", "winter", "star") and rng.random() < 0.4:
            paragraphs[1].insert(0, "{weather}")
        if rng.random() < 0.6:
            paragraphs[-1].append(rng.choice(CLOSINGS))
        text = "\n\n".join(" ".join(sentences) for sentences in paragraphs).format_map(values)
        text = _polish(text, values["an_elder"].removeprefix("an old "))
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            return Story(text, plot, values)


def _fits(plot: Plot, noun: str | None) -> bool:
    return noun is None or (plot.uses_thing and (not plot.things or noun in plot.things))
