"""Writes the plots of the embedded sample.

A plot tells what the hero does for a living (one of three callings), in the opening sentence or in
a sentence of its own or in both, and it may hold a sentence about love; these two are its cues.
Everything else (title, names, towns, sentences about weather, food and neighbours) is drawn from
the same distribution for every plot. A plot has at most `MAX_TOKENS` words and punctuation marks.
"""

import random
import re

CALLINGS = ("police", "army", "stage")
MAX_TOKENS = 62  # with the two special tokens of a BERT tokenizer, 64

_HEROES = {
    "police": ("detective", "inspector", "sleuth", "constable", "investigator", "patrolman"),
    "army": ("soldier", "sergeant", "corporal", "lieutenant", "cadet", "gunner"),
    "stage": ("singer", "violinist", "drummer", "pianist", "trumpeter", "guitarist"),
}
_DEEDS = {
    "police": (
        "A stolen {thing} leads to a gang of burglars.",
        "{they} must prove who robbed the bank.",
        "Every suspect has an alibi for the night of the theft.",
        "The fingerprints on the {thing} tell another story.",
        "An old smuggler confesses, but nobody believes the thief.",
        "A ransom note arrives, written in green ink.",
    ),
    "army": (
        "The regiment marches towards the front before dawn.",
        "{they} must hold the trench until the others return.",
        "Far behind enemy lines a bridge waits to be blown up.",
        "Shells fall on the barracks for three days.",
        "A cruel general sends the platoon across the river.",
        "After the battle only the {thing} is left in the bunker.",
    ),
    "stage": (
        "The orchestra rehearses in a cellar below the {thing} shop.",
        "{they} must write one last song before the concert.",
        "A forgotten melody fills the opera house again.",
        "The band drives from town to town with a broken amplifier.",
        "Somebody has torn the last page out of the symphony.",
        "A record label offers a contract for the ballad.",
    ),
}
_LOVE = (
    "Soon {they} falls in love with {other}.",
    "A kiss in the rain changes everything.",
    "{other} keeps every one of the tender letters.",
    "The wedding is only a week away.",
    "{they} has lost {their} heart to {other}.",
    "Two sweethearts meet in secret under the {thing}.",
    "{other} turns down the proposal, and regrets it.",
    "The engagement to {other} is broken off twice.",
)
_ELSEWHERE = (
    "It has not stopped raining in {town} since {month}.",
    "{other} keeps {number} hens and trusts none of them.",
    "Nobody remembers who painted the {thing} {colour}.",
    "The {colour} {thing} is always locked on Sundays.",
    "{other}, a retired {job}, knows more than anybody guesses.",
    "The train to {town} is {number} hours late.",
    "{they} has sold the {thing} to pay the rent.",
    "A {job} from {town} asks for directions.",
    "There is soup again, and no bread.",
    "The neighbours complain about the {thing}.",
    "{other} has borrowed {their} bicycle without asking.",
    "In {month} the snow closes the road to {town}.",
    "A {colour} dog follows {them} everywhere.",
    "The {job} and {other} have not spoken for {number} years.",
    "Somewhere a {thing} is missing, and {other} is blamed.",
    "{they} learns to cook from a {job}.",
    "The old ferry leaves {town} for the last time.",
    "An aunt in {town} sends {number} jars of honey.",
)
_OPENINGS = (
    'In "{title}", {name} is a {manner} {hero} from {town}.',
    "{name}, a {manner} {hero}, comes back to {town} after {number} years.",
    "When {name} arrives in {town}, nobody expects a {manner} {hero}.",
    '"{title}" tells of {name}, the {manner} {hero} of {town}.',
    "{town} has seen many strangers, but no {hero} as {manner} as {name}.",
    "The {manner} {hero} {name} inherits a {thing} in {town}.",
)
_ENDINGS = (
    "Time is running out.",
    "Nothing will be as it was.",
    "But {town} never forgets.",
    "And then the {thing} disappears.",
    "In the end only {other} knows the truth.",
    "It is going to be a long {month}.",
)
_TITLES = (
    "the {colour} {thing}",
    "{number} days in {month}",
    "a {thing} for {other}",
    "the {manner} {job}",
    "{name}",
    "beyond the {thing}",
)
_STRANGERS = ("stranger", "newcomer", "visitor", "guest", "loner", "traveller")
_WORDS = {
    "thing": (
        *("lighthouse", "mirror", "clock", "greenhouse", "chapel", "barometer", "lantern"),
        *("garden", "suitcase", "windmill", "staircase", "painting", "well", "cupboard", "statue"),
    ),
    "colour": ("red", "blue", "green", "yellow", "white", "brown", "purple", "grey"),
    "month": ("January", "March", "April", "June", "August", "October", "November", "winter"),
    "number": ("two", "three", "four", "five", "seven", "nine", "eleven", "twenty"),
    "job": ("baker", "teacher", "dentist", "gardener", "librarian", "plumber", "tailor", "miller"),
    "manner": ("shy", "stubborn", "clumsy", "cheerful", "weary", "proud", "restless", "gentle"),
}
_PRONOUNS = (
    {"they": "she", "them": "her", "their": "her"},
    {"they": "he", "them": "him", "their": "his"},
)
_ONSETS = (
    "b",
    "br",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
)
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("l", "n", "r", "s", "th", "nd", "rk", "m")
_TOWNS = ("ham", "ford", "mouth", "field", "by", "stead")


def write(rng: random.Random, calling: str, love: bool) -> str:
    """Writes one plot.

    Args:
        rng: Decides everything but the two cues.
        calling: One of `CALLINGS`.
        love: Whether the plot holds a sentence about love.

    Returns:
        A few English sentences.
    """
    story = _Story(rng)
    told = rng.choice(("opening", "sentence", "both", "both"))
    hero = rng.choice(_STRANGERS if told == "sentence" else _HEROES[calling])
    opening = story.tell(rng.choice(_OPENINGS), hero=hero)
    middle = [] if told == "opening" else [story.tell(rng.choice(_DEEDS[calling]))]
    if love:
        middle.append(story.tell(rng.choice(_LOVE)))
    ending = story.tell(rng.choice(_ENDINGS))
    tokens = sum(map(_tokens, [opening, *middle, ending]))
    for template in rng.sample(_ELSEWHERE, rng.randint(2, 5) - len(middle)):
        sentence = story.tell(template)
        tokens += _tokens(sentence)
        if tokens > MAX_TOKENS:
            break
        middle.append(sentence)
    rng.shuffle(middle)
    return " ".join([opening, *middle, ending])


class _Story:
    """The people and places of one plot, and the words not yet chosen."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._fixed = {
            **rng.choice(_PRONOUNS),
            "name": f"{self._invent(2)} {self._invent(2)}",
            "other": self._invent(2),
            "town": self._invent(1) + rng.choice(_TOWNS),
        }
        self._fixed["title"] = self.tell(rng.choice(_TITLES)).title()

    def tell(self, template: str, **words: str) -> str:
        """Fills the template's slots: people and places stay the same, other words vary."""
        chosen = {key: self._rng.choice(choices) for key, choices in _WORDS.items()}
        sentence = template.format(**{**chosen, **self._fixed, **words})
        return sentence[0].upper() + sentence[1:]

    def _invent(self, syllables: int) -> str:
        choice = self._rng.choice
        parts = [choice(_ONSETS) + choice(_VOWELS) for _ in range(syllables)]
        return ("".join(parts) + choice(_CODAS)).capitalize()


def _tokens(text: str) -> int:
    """How many words and punctuation marks a BERT tokenizer sees, before it cuts rare words."""
    return len(re.findall(r"\w+|[^\w\s]", text))
