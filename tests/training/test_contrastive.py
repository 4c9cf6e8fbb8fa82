import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.training.contrastive import info_nce

B, M, E = 6, 3, 4
NAMES = ("audio", "text", "video")


def draw(seed=0):
    """Vectors, targets and a batch, in which some things are absent, alike or padding."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(B, 1 + M, E))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    targets = np.array([[0, 0], [1, 1], [0, 1], [1, 2], [-1, 3], [0, 4]], np.int32)
    present = {name: np.ones(B, bool) for name in NAMES}
    present["audio"][1] = present["text"][3] = present["video"][3] = False
    weight = np.array([1, 1, 1, 1, 1, 0], np.float32)
    return vectors.astype(np.float32), targets, {"present": present, "weight": weight}


def by_hand(vectors, targets, batch, temperature, positives):
    """The definition, one anchor and one positive after the other."""
    present = np.stack([batch["present"][name] for name in NAMES], axis=1)
    real = batch["weight"] > 0
    vectors = vectors.astype(np.float64)
    costs = np.zeros(B)

    def cost(anchor, positive, negatives):
        above = np.exp(anchor @ positive / temperature)
        below = above + sum(np.exp(anchor @ n / temperature) for n in negatives)
        return -np.log(above / below)

    for i in range(B):
        others = [j for j in range(B) if real[j] and targets[j, 1] != targets[i, 1]]
        across = [
            cost(
                vectors[i, 1 + m],
                vectors[i, 1 + n],
                [vectors[j, 1 + n] for j in others if present[j, n]],
            )
            for m in range(M)
            for n in range(M)
            if m != n and present[i, m] and present[i, n]
        ]
        known = real[i] and targets[i, 0] >= 0
        alike = [
            cost(
                vectors[i, 0],
                vectors[p, 0],
                [
                    vectors[j, 0]
                    for j in others
                    if targets[j, 0] >= 0 and targets[j, 0] != targets[i, 0]
                ],
            )
            for p in range(B)
            if known and p != i and real[p] and targets[p, 0] == targets[i, 0]
        ]
        for chosen, kind in ((across, "class"), (alike, "modalities")):
            if chosen and positives != kind:
                costs[i] += np.mean(chosen)
    return costs


@pytest.mark.parametrize("positives", ["modalities", "class", "both"])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_its_definition(positives, temperature):
    given = draw()
    found = info_nce(*given, temperature=temperature, positives=positives)
    real = given[2]["weight"] > 0
    want = by_hand(*given, temperature, positives)
    np.testing.assert_allclose(found[real], want[real], rtol=1e-4, atol=1e-5)
    assert want[real].any()


@pytest.mark.parametrize("positives", ["modalities", "class", "both"])
def test_without_positives_or_negatives_it_is_0_and_finite(positives):
    vectors, targets, batch = draw()
    alone = {name: np.arange(B) == i for i, name in enumerate(NAMES)}  # no pair in any row
    classes = np.stack([np.arange(B), np.arange(B)], axis=1).astype(np.int32)
    for given in (
        (vectors, classes, {**batch, "present": alone}),
        (vectors, np.zeros_like(targets), batch),  # everybody is the same person
        (vectors, targets, {**batch, "weight": np.zeros(B, np.float32)}),
    ):

        def total(x, given=given):
            return info_nce(
                x, *map(_arrays, given[1:]), temperature=0.07, positives=positives
            ).sum()

        value, gradient = jax.value_and_grad(total)(jnp.asarray(given[0]))
        assert jnp.isfinite(gradient).all()
        assert value == pytest.approx(0, abs=1e-6)


def _arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("positives", ["modalities", "both"])
def test_the_same_subject_is_never_pushed_away(positives):
    """Rows 1 and 2 are of one person: what row 2 looks like must not change row 1's cost."""
    vectors, targets, batch = draw()
    targets[1, 0] = 2  # of no class that others have, so that row 2 is no positive either
    turned = vectors.copy()
    turned[2] = -turned[2]
    before, after = (
        info_nce(x, targets, batch, temperature=0.1, positives=positives) for x in (vectors, turned)
    )
    assert before[1] == after[1]
    assert before[0] != after[0]


def test_padding_and_what_is_absent_change_nothing():
    vectors, targets, batch = draw()
    changed = vectors.copy()
    changed[5] = vectors[0]  # padding
    changed[1, 1] = vectors[0, 1]  # row 1 has no audio
    before, after = (
        info_nce(x, targets, batch, temperature=0.1, positives="both") for x in (vectors, changed)
    )
    np.testing.assert_array_equal(before[:5], after[:5])
