"""A product's category from its text: a CNN over words.

python -m jfusion.main --config configs/product_text.py
    Compact networks from scratch on the embedded sample of invented product listings.

python -m jfusion.prepare --dataset rakuten --source /path/to/the/files
python -m jfusion.main --config configs/product_text.py:rakuten
    The full recipe on Rakuten's 84,916 listings in 27 categories (its own split: the challenge
    keeps the labels of its test listings). The files are given out by the organisers of challenge
    35 on challengedata.ens.fr, after registration; they may not be passed on.

TextCNN: 60 words of the 15,000 commonest, embedding 128, convolutions over 2, 3 and 4 words with 64
filters each, their maxima joined to 192, then 128 with BatchNorm and dropout 0.3.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The sample's config, or with `rakuten` the full recipe."""
    if variant == "rakuten":
        return rakuten()
    if variant:
        raise ValueError(f"no variant {variant!r}; there is rakuten, and the sample without one")
    return sample()


def sample() -> ConfigDict:
    """A compact network on the embedded sample."""
    config = recipe("designation", dict(width=32, filters=32, hidden=64))
    config.data = dict(source="products", on_error="missing")
    config.inputs.text.update(max_tokens=24)
    config.train.update(phases=(dict(epochs=12, rates=((".*", 2e-3),)),), patience=4)
    return config


def rakuten() -> ConfigDict:
    """The full recipe."""
    config = recipe("text", {})
    config.data = dict(source="rakuten", on_error="missing")
    config.train.update(phases=(dict(epochs=20, rates=((".*", 1e-3),)),), patience=4)
    return config


def recipe(column: str, sizes: dict) -> ConfigDict:
    """What both have in common."""
    return ConfigDict(
        dict(
            inputs=dict(
                text=dict(
                    kind="text",
                    column=column,
                    max_tokens=60,
                    vocabulary=15_000,
                    encoder=dict(network="text_cnn", sizes=sizes),
                )
            ),
            targets=dict(code=dict(kind="classes", column="code")),
            fusion=dict(kind="concat", hidden=()),
            train=dict(batch_size=32, weight_decay=0.01),
        )
    )
