"""Writes the titles of the embedded sample of product listings.

A title tells what a thing is for (one of five topics) by one to three words of that topic, or it
does not tell (no topic). Everything else (brand, colour, size, praise, the order of the parts,
capitals) is drawn from the same distribution for every title. Some titles also say what is not
there: after "without" stands a word of any topic, and means nothing.

A title has at most `MAX_WORDS` words.
"""

import random

TOPICS = ("fishing", "knitting", "astronomy", "infants", "cycling")
MAX_WORDS = 20

_WORDS = {
    "fishing": (
        *("angler", "bait", "carp", "fishing", "lure", "reel", "sinker", "tackle", "trout"),
        "waders",
    ),
    "knitting": (
        *("crochet", "jersey", "knitting", "merino", "mohair", "needles", "skein", "stitch"),
        *("wool", "yarn"),
    ),
    "astronomy": (
        *("astronomy", "comet", "eclipse", "eyepiece", "lunar", "nebula", "orbit", "planet"),
        *("refractor", "stargazing"),
    ),
    "infants": (
        *("baby", "bib", "cradle", "infant", "lullaby", "newborn", "nursery", "pram", "teething"),
        "toddler",
    ),
    "cycling": (
        *("bicycle", "cyclist", "derailleur", "handlebar", "mudguard", "pedal", "peloton"),
        *("saddle", "spoke", "velodrome"),
    ),
}
_THINGS = ("article", "accessory", "item", "model", "object", "piece", "product", "set")
_PRAISE = (
    *("classic", "compact", "durable", "elegant", "handy", "light", "original", "practical"),
    *("robust", "simple", "smart", "sturdy"),
)
_COLOURS = ("beige", "black", "blue", "brown", "green", "grey", "orange", "pink", "red", "white")
_SIZES = ("{n} cm", "{n} x {m} cm", "size M", "size XL", "no. {n}", "{n} ml", "ref. {n}{m}")
_ENDINGS = (
    *("", "", "gift idea", "as pictured", "in its box", "with instructions", "free shipping"),
    *("worldwide delivery", "latest edition", "limited stock", "- 2 year guarantee", "(see photo)"),
)
_BRANDS = tuple(
    start + end
    for start in ("bel", "cor", "dra", "fen", "lum", "nor", "tal", "vin")
    for end in ("dex", "ika", "omo", "ra", "tek")
)
_MOST = 3  # words of the topic
_WITHOUT = 0.12


def write(rng: random.Random, topic: str | None) -> str:
    """Writes one title.

    Args:
        rng: Decides everything but the topic.
        topic: One of `TOPICS`, or None: the title does not tell.

    Returns:
        A few English words.
    """
    number, other = rng.randint(2, 90), rng.randint(2, 90)
    parts = [
        rng.choice(_THINGS),
        rng.choice(_COLOURS),
        rng.choice(_SIZES).format(n=number, m=other),
        *rng.sample(_PRAISE, rng.randint(1, 3)),
    ]
    if topic is not None:
        parts += rng.sample(_WORDS[topic], rng.randint(1, _MOST))
    rng.shuffle(parts)
    if rng.random() < _WITHOUT:
        parts.append(f"without {rng.choice(_WORDS[rng.choice(TOPICS)])}")
    title = " ".join([rng.choice(_BRANDS), *parts, rng.choice(_ENDINGS)]).strip()
    return rng.choice((str, str, str.title, str.upper, str.capitalize))(title)
