import hashlib
import itertools
import random
import re

import numpy as np
import pytest

from jfusion.data import groups
from jfusion.data.problems import DataError
from jfusion.data.samples import answers, interviews
from jfusion.data.sequence import SequenceInput
from jfusion.data.source import Source

ALL = interviews.COLUMNS


@pytest.fixture(scope="module")
def splits():
    return interviews.sources()


@pytest.fixture(scope="module")
def everything(splits):
    """(row, traits) of every interview."""
    return [(s[i], s.traits(i)) for s in splits.values() for i in range(len(s))]


@pytest.fixture(scope="module")
def many():
    """A split large enough for frequencies: (source, traits, scores)."""
    source = interviews.Interviews("many", 8000, seed=5)
    rows = range(len(source))
    return source, [source.traits(i) for i in rows], np.array([source.score(i) for i in rows])


def same(row, other):
    """Whether rows are equal, NaN included."""
    assert row.keys() == other.keys()
    return {key for key in row if not _equal(row[key], other[key])} == set()


def _equal(one, other):
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and not isinstance(one, np.ndarray) and one == other


def test_splits_are_sources_of_the_promised_sizes(splits):
    assert {name: len(source) for name, source in splits.items()} == interviews.ROWS
    assert all(isinstance(source, Source) for source in splits.values())


def test_rows_shares_a_number_of_interviews_among_the_splits():
    few = interviews.sources(100)
    assert sum(map(len, few.values())) == 100
    assert len(few["train"]) > len(few["test"]) > len(few["val"]) >= 1
    assert same(few["test"][3], interviews.sources()["test"][3])
    with pytest.raises(DataError, match="at least 10 rows"):
        interviews.sources(9)


def test_a_row_has_its_cells(splits):
    row = splits["train"][0]
    assert list(row) == ["id", "participant", "transcript", "audio", "video", "phq8"]
    assert row["id"] == "train-0001"
    assert splits["train"].locate(0) == "interviews/train row 1 (id train-0001)"
    assert {c: len(n) for c, n in splits["train"].features.items()} == {"audio": 74, "video": 10}
    with pytest.raises(IndexError, match="no row 151"):
        splits["val"][150]


def test_the_same_seed_gives_the_same_interviews(splits):
    again = interviews.sources()["val"]
    assert all(same(again[i], splits["val"][i]) for i in range(10))
    other = interviews.sources(seed=1)["val"]
    assert not any(same(other[i], again[i]) for i in range(10))


def test_the_fingerprint_tells_all_that_a_source_is_made_from(monkeypatch):
    def made():
        parts = itertools.product(("val", "test"), (10, 11), (0, 1))
        return [interviews.Interviews(*part).fingerprint for part in parts]

    before = made()
    assert made() == before
    monkeypatch.setattr(interviews.Interviews, "version", 3)
    assert len({*before, *made()}) == 16


def test_the_generator_gives_what_its_version_says(splits):
    """Where this fails on purpose, raise `version` too, or old caches are taken for new rows."""
    rows = [splits["val"][i] for i in range(50)]
    told = [(row["participant"], row["transcript"], row["phq8"]) for row in rows]
    digest = hashlib.sha256(repr(told).encode()).hexdigest()
    assert (interviews.Interviews.version, digest[:16]) == (2, "c5317ab9a1ec23b2")
    # Of both columns: two features, and one with events.
    picked = [rows[0]["audio"][:, [-1, 0, 12]], rows[0]["video"][:, [-1, 0, 5]]]
    means = [np.nanmean(np.abs(cell), axis=0, dtype=np.float64) for cell in picked]
    np.testing.assert_allclose(
        means, [[0.2209563, 83.53357, 9.495734], [180.4072, 150.0402, 0.7345044]], rtol=1e-4
    )


def test_participants_have_one_or_two_interviews_in_one_split(everything):
    rows = groups.members([row["participant"] for row, _ in everything])
    sizes = [len(r) for r in rows.values()]
    assert set(sizes) == {1, 2}
    assert 0.1 < np.mean(np.array(sizes) == 2) < 0.25
    twice = [[everything[i] for i in r] for r in rows.values() if len(r) == 2]
    for (row, traits), (other_row, other) in twice:
        assert row["id"].split("-")[0] == other_row["id"].split("-")[0]
        assert traits.mood == other.mood
    assert any(traits != other for (_, traits), (_, other) in twice)


def test_traits_are_independent_and_even(many):
    _, traits, _ = many
    kinds = [(t.mood, t.loud, t.voice_order, t.face_order) for t in traits]
    counts = [kinds.count(k) for k in itertools.product(range(3), *[(False, True)] * 3)]
    # Participants with two interviews have one mood: counts vary a little more than by chance.
    assert np.all(np.abs(np.array(counts) - len(kinds) / 24) < 6 * np.sqrt(len(kinds) / 24))


def test_scores_are_whole_and_balanced(many, everything):
    _, _, scores = many
    assert scores.min() == 0 and 18 < scores.max() <= 24
    assert np.all(scores == np.round(scores))
    assert 5.4 < scores.std() < 6
    assert 0.3 < np.mean(scores >= 10) < 0.4
    assert all(type(row["phq8"]) is float for row, _ in everything)


def test_missing_modalities(everything):
    absent = [[c for c in ALL if row[c] is None] for row, _ in everything]
    assert {len(gone) for gone in absent} == {0, 1}
    assert {gone[0] for gone in absent if gone} == set(ALL)
    assert 0.02 < np.mean([len(gone) for gone in absent]) < 0.06


def test_sequences_have_gaps_and_infinities(splits):
    rows = [splits["val"][i] for i in range(len(splits["val"]))]
    for row in rows:
        audio, video = row["audio"], row["video"]
        for cell, width in ((audio, 74), (video, 10)):
            if cell is not None:
                assert cell.dtype == np.float32 and cell.shape[1] == width
                assert 120 <= len(cell) <= 240
                assert np.isfinite(cell).mean() > 0.85
        if audio is not None and video is not None:
            assert len(audio) == len(video)
    audios = [row["audio"] for row in rows if row["audio"] is not None]
    videos = [row["video"] for row in rows if row["video"] is not None]
    assert len({len(cell) for cell in audios}) > 50
    assert 0.005 < np.mean([np.isnan(cell).mean() for cell in audios]) < 0.03
    assert 0.2 < np.mean([np.isnan(cell).any() for cell in videos]) < 0.8
    infinite = [int(np.isinf(cell).sum()) for cell in audios]
    assert 0.03 < np.mean(np.array(infinite) > 0) < 0.2 and max(infinite) <= 4
    assert not any(np.isinf(cell).any() for cell in videos)


def test_the_reader_of_sequences_takes_them(splits):
    source = splits["val"]
    for column, names in source.features.items():
        reader = SequenceInput.fit(source, column, features=names[2:5], steps=100)
        cells = [cell for i in range(40) if (cell := source[i][column]) is not None]
        encoded = reader.encode(cells)
        assert not encoded.bad
        assert encoded.arrays["valid"].mean() > 0.9
        assert 0.4 < encoded.arrays["frames"].std() < 1.2


def test_a_cell_depends_on_its_own_traits_only(splits, monkeypatch):
    source = splits["train"]
    whole = [i for i in range(12) if source.columns(i) == ALL]
    before = [source[i] for i in whole]
    real = interviews.Interviews.traits
    shown = {
        "transcript": lambda t: interviews.Traits(
            (t.mood + 1) % 3, t.loud, t.voice_order, t.face_order
        ),
        "audio": lambda t: interviews.Traits(t.mood, not t.loud, not t.voice_order, t.face_order),
        "video": lambda t: interviews.Traits(t.mood, t.loud, t.voice_order, not t.face_order),
    }
    for column, turn in shown.items():
        monkeypatch.setattr(
            interviews.Interviews, "traits", lambda self, i, turn=turn: turn(real(self, i))
        )
        for row, i in zip(before, whole, strict=True):
            changed = {c for c in ALL if not _equal(row[c], source[i][c])}
            assert changed == {column}


def _means(rows, column):
    cells = [np.where(np.isinf(row[column]), np.nan, row[column]) for row in rows]
    standard = np.nanmean(np.concatenate(cells), axis=0), np.nanstd(np.concatenate(cells), axis=0)
    return [(cell - standard[0][None]) / standard[1][None] for cell in cells]


def _correlations(statistics, truth):
    return np.array([np.corrcoef(s, truth)[0, 1] for s in np.stack(statistics, axis=1)])


@pytest.mark.parametrize("column, trait", [("audio", "voice_order"), ("video", "face_order")])
def test_order_shows_in_time_and_in_no_mean(everything, column, trait):
    there = [(row, traits) for row, traits in everything if row[column] is not None]
    truth = np.array([getattr(traits, trait) for _, traits in there])
    cells = _means([row for row, _ in there], column)
    # Of frames one by one, linear or not, no mean tells. 0.032 is one standard deviation.
    for statistic in (lambda x: x, lambda x: x**2, lambda x: np.maximum(x - 1, 0)):
        found = _correlations([np.nanmean(statistic(cell), axis=0) for cell in cells], truth)
        assert np.max(np.abs(found)) < 0.14

    # Events of the first kind a few steps before those of the second, against the other way round.
    names = interviews.FEATURES[column]
    first, second = ([names.index(name) for name in kind] for kind in interviews._EVENTS[column])
    votes = []
    for cell in cells:
        a, b = (np.nan_to_num(cell[:, kind]).mean(axis=1) for kind in (first, second))
        lag = round(0.055 * len(cell))
        votes.append(a[lag:] @ b[:-lag] - a[:-lag] @ b[lag:])
    assert np.mean((np.array(votes) > 0) == truth) > 0.97


def test_the_events_of_a_pair_are_a_few_steps_apart():
    clock = (np.arange(1000) + 0.5) / 1000
    for seed in range(50):
        early, late = interviews._pairs(np.random.default_rng(seed), 1000)
        peaks = [
            clock[1:-1][(x[1:-1] > x[:-2]) & (x[1:-1] >= x[2:]) & (x[1:-1] > 2)]
            for x in (early, late)
        ]
        assert len(peaks[0]) == len(peaks[1]) in (2, 3)
        assert np.all((peaks[1] - peaks[0] > 0.03) & (peaks[1] - peaks[0] < 0.08))
        assert 0.04 < peaks[0][0] and peaks[1][-1] < 0.96  # whole bumps: their mean is the same


def test_loudness_shows_in_the_mean(everything):
    there = [(row, traits) for row, traits in everything if row["audio"] is not None]
    truth = np.array([traits.loud for _, traits in there])
    cells = _means([row for row, _ in there], "audio")
    found = _correlations([np.nanmean(cell, axis=0) for cell in cells], truth)
    names = {interviews.FEATURES["audio"][i] for i in np.flatnonzero(np.abs(found) > 0.14)}
    assert names == set(interviews._LOUD_FEATURES)


def test_mood_turns_a_part_of_the_effect_of_the_voice():
    def effect(mood):
        two = (interviews.Traits(mood, False, order, False).centre() for order in (True, False))
        return next(two) - next(two)

    assert effect(0) == effect(1) == pytest.approx(2 * (2.6 + 1.6))
    assert effect(2) == pytest.approx(2 * (2.6 - 1.6))


def test_the_means_are_those_of_the_scores(many):
    """For every choice of columns and every kind of interview: standard scores of the means."""
    _, traits, scores = many
    for order in (True, False):
        means = interviews._means(order)
        found: dict[tuple, list[float]] = {}
        for trait, score in zip(traits, scores, strict=True):
            for size in range(4):
                for columns in itertools.combinations(ALL, size):
                    found.setdefault(trait.seen(columns, order), []).append(score)
        assert found.keys() == means.keys()
        deviations = [
            (np.mean(group) - means[seen]) / (max(np.std(group), 0.1) / np.sqrt(len(group)))
            for seen, group in found.items()
        ]
        assert np.max(np.abs(deviations)) < 5 and 0.5 < np.std(deviations) < 1.5


def test_best_possible_is_the_spread_around_what_is_seen(many):
    """Its square is the mean variance of the scores within what the reader sees, by simulation."""
    source, traits, scores = many
    for columns, order in [((), True), (("transcript",), True), (ALL, False), (ALL, True)]:
        alike: dict[tuple, list[float]] = {}
        for i, score in enumerate(scores[:4000]):
            visible = tuple(c for c in source.columns(i) if c in columns)
            alike.setdefault((visible, traits[i].seen(visible, order)), []).append(score)
        within = sum(len(group) * np.var(group) for group in alike.values())
        within /= 4000 - len(alike)  # each mean was taken from the group itself
        best = interviews.best_possible(source, columns, range(4000), order=order)["rmse"]
        assert best == pytest.approx(np.sqrt(within), rel=0.01)


def test_every_modality_and_the_order_add_to_the_best_possible(splits):
    def rmse(columns=ALL, order=True):
        return interviews.best_possible(splits["test"], columns, order=order)["rmse"]

    assert 1.3 < rmse() < 1.7  # the noise, rounding, and what is missing
    for pair in itertools.combinations(ALL, 2):
        assert rmse() + 0.8 < rmse(pair) < rmse(pair[:1])
    assert 3.7 < rmse(order=False) < 4.5
    assert rmse(("transcript", "video"), order=False) == pytest.approx(rmse(("transcript",)))
    assert rmse(order=False) + 0.1 < rmse(("transcript",)) < rmse(()) - 0.8
    constant = np.std([splits["test"].score(i) for i in range(250)])
    assert constant <= rmse(()) < constant + 0.1
    # Words and loudness alone explain 40 to 50 %.
    assert 0.4 < 1 - (rmse(order=False) / rmse(())) ** 2 < 0.5


def test_best_possible_takes_rows_and_draws_no_cell(splits, monkeypatch):
    def draw(*_):
        raise AssertionError("a cell was drawn")

    monkeypatch.setattr(interviews.Interviews, "_noise", draw)
    monkeypatch.setattr(answers, "write", draw)
    source = splits["val"]
    each = [interviews.best_possible(source, rows=[i])["rmse"] for i in range(20)]
    some = interviews.best_possible(source, rows=range(20))["rmse"]
    assert some == pytest.approx(np.sqrt(np.mean(np.square(each))))
    assert some != interviews.best_possible(source)["rmse"]


def test_transcripts_fit_their_limits_and_vary():
    texts = [answers.write(random.Random(i), answers.MOODS[i % 3]) for i in range(1500)]
    words = [len(text.split()) for text in texts]
    assert answers.MIN_WORDS <= min(words) < 50 < 80 < max(words) <= answers.MAX_WORDS
    assert max(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts) <= answers.MAX_TOKENS
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if re.search(r"[{}]|  | [.,]|[.,]{2}", text)]
    assert not [text for text in texts if re.search(r"(^|\. )[a-z]|\bi\b", text)]


def test_a_transcript_tells_its_mood_and_no_other():
    words = {
        mood: {word for cue in cues for word in re.findall(r"\w+", cue.lower())}
        for mood, cues in answers._CUES.items()
    }
    common = {
        w
        for group in (*answers._ELSEWHERE, *answers._OPENINGS)
        for w in re.findall(r"\w+", group.lower())
    }
    for i, mood in enumerate(answers.MOODS * 60):
        text = answers.write(random.Random(i), mood)
        lowered = text.lower()
        told = {m: sum(cue.lower() in lowered for cue in answers._CUES[m]) for m in answers.MOODS}
        assert told == {m: 3 if m == mood else 0 for m in answers.MOODS}, text
    for mood, other in itertools.permutations(answers.MOODS, 2):
        assert len(words[mood] - words[other] - common) > 15
