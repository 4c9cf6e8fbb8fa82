"""Writes the transcripts of the embedded sample of interviews.

A transcript strings together what somebody answered: three answers tell the mood (one of three),
the others (about town, work, food, pets and holidays) are drawn from the same distribution for
every transcript. It has `MIN_WORDS` to `MAX_WORDS` words, and at most `MAX_TOKENS` words and
punctuation marks.
"""

import random
import re

MOODS = ("bright", "weary", "low")
MIN_WORDS, MAX_WORDS = 40, 90
MAX_TOKENS = 110  # with the two special tokens of a BERT tokenizer well below 128

_TOLD = 3
_CUES = {
    "bright": (
        "I wake up rested and cheerful most days.",
        "I laugh a lot and I am proud of how it goes.",
        "I feel hopeful and I enjoy the little things.",
        "I have plenty of energy and I sleep wonderfully.",
        "I am excited about the year ahead and rather calm.",
        "My friends say I am cheerful, and I do feel great.",
        "I am grateful and hopeful, and I enjoy mornings.",
        "It has been great, I am proud and full of energy.",
    ),
    "weary": (
        "I am tired all the time and I cannot concentrate.",
        "I get irritable by noon and then I am exhausted.",
        "I feel restless at night and stressed in the day.",
        "My appetite comes and goes and I am worn out.",
        "I worry too much and I am too tired to cook.",
        "I am stressed and restless, I lose the thread.",
        "I snap at people, I am irritable and worn out.",
        "I was exhausted again and I worry about that.",
    ),
    "low": (
        "I feel empty and nothing seems to matter.",
        "I cry for no reason and I feel worthless.",
        "It is hopeless, I stay in bed until late.",
        "I feel numb and guilty and I see nobody.",
        "I am lonely and I have given up on things.",
        "I blame myself, I feel worthless and numb.",
        "I was sad and empty and I cry at night.",
        "I feel guilty and lonely, it is hopeless.",
    ),
}
_ELSEWHERE = (
    "I grew up in {town} with {number} brothers.",
    "I moved here from {town} about {number} years ago.",
    "I used to be a {job} and now I repair {things}.",
    "My neighbour is a {job} and collects {things}.",
    "We have a {colour} {pet} and it eats everything.",
    "On {day} I usually make {food} for the family.",
    "The traffic on {day} is what I like least.",
    "I took the train to {town} last {month}.",
    "I studied to be a {job} for {number} years.",
    "My sister sells {things} at the market on {day}.",
    "The weather here in {month} is hard to describe.",
    "I painted the kitchen {colour} in {month}.",
    "I would like to see {town} again some {month}.",
    "We talk about {food} and about {things} mostly.",
)
_OPENINGS = ("", "", "", "Um, ", "Well, ", "Uh, ", "Yeah, ", "Let me think, ", "You know, ", "Hm, ")
_WORDS = {
    "town": ("Fresno", "Tucson", "Boston", "Denver", "Austin", "Portland", "Chicago", "Reno"),
    "number": ("two", "three", "four", "five", "seven", "nine", "ten", "twelve"),
    "job": ("baker", "teacher", "dentist", "gardener", "librarian", "plumber", "tailor", "cook"),
    "things": ("clocks", "bicycles", "radios", "stamps", "lamps", "books", "shoes", "maps"),
    "colour": ("red", "blue", "green", "yellow", "white", "brown", "purple", "grey"),
    "pet": ("dog", "cat", "parrot", "rabbit", "hamster", "turtle"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "food": ("soup", "noodles", "beans", "pancakes", "rice", "salad", "chili", "bread"),
    "month": ("January", "March", "April", "June", "August", "October", "November", "winter"),
}


def write(rng: random.Random, mood: str) -> str:
    """Writes one transcript.

    Args:
        rng: Decides everything but the mood.
        mood: One of `MOODS`.

    Returns:
        A few English sentences.
    """
    answers = [_say(rng, template) for template in rng.sample(_CUES[mood], _TOLD)]
    words = sum(map(_words, answers))
    for template in rng.sample(_ELSEWHERE, rng.randint(2, 5)):
        answer = _say(rng, template)
        words += _words(answer)
        if words > MAX_WORDS:
            break
        answers.append(answer)
    rng.shuffle(answers)
    return " ".join(answers)


def _say(rng: random.Random, template: str) -> str:
    chosen = {key: rng.choice(choices) for key, choices in _WORDS.items()}
    answer, opening = template.format(**chosen), rng.choice(_OPENINGS)
    if opening and not re.match(r"I\b", answer):
        answer = answer[0].lower() + answer[1:]
    return opening + answer


def _words(text: str) -> int:
    return len(text.split())
