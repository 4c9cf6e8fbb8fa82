"""Movie genres from the plot: DistilBERT's first token, fully connected layers with dropout.

python -m jfusion.main --config configs/genre_text.py
    A compact encoder from scratch on the embedded sample.

python -m jfusion.prepare --dataset mm_imdb --source /path/to/mmimdb
python -m jfusion.main --config configs/genre_text.py:mm_imdb
    The full recipe: pretrained DistilBERT (256 tokens) on MM-IMDb, 23 genres.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The sample's config, or with `mm_imdb` the full recipe."""
    if variant == "mm_imdb":
        return mm_imdb()
    if variant:
        raise ValueError(f"no variant {variant!r}; there is mm_imdb, and the sample without one")
    return sample()


def sample() -> ConfigDict:
    """A compact encoder on the embedded sample of movies."""
    return ConfigDict(
        dict(
            data=dict(source="movies", on_error="skip"),
            inputs=dict(
                plot=dict(
                    kind="text",
                    column="plot",
                    max_tokens=64,
                    encoder=dict(
                        network="distilbert",
                        sizes=dict(
                            dim=64,
                            n_layers=2,
                            n_heads=4,
                            hidden_dim=128,
                            max_position_embeddings=64,
                        ),
                    ),
                ),
            ),
            targets=dict(genres=dict(kind="multilabel", column="genres")),
            fusion=dict(kind="concat", hidden=(128,), dropout=0.1),
            train=dict(
                batch_size=64,
                phases=(dict(epochs=20, rates=((".*", 2e-3),)),),
                patience=6,
            ),
        )
    )


def mm_imdb() -> ConfigDict:
    """DistilBERT on MM-IMDb."""
    return ConfigDict(
        dict(
            data=dict(source="mm_imdb", on_error="skip"),
            inputs=dict(
                plot=dict(
                    kind="text",
                    column="plot",
                    max_tokens=256,
                    encoder=dict(network="distilbert", weights="distilbert-base-uncased"),
                ),
            ),
            targets=dict(genres=dict(kind="multilabel", column="genres")),
            fusion=dict(kind="concat", hidden=(512,), dropout=0.3),
            train=dict(
                batch_size=192,
                accumulate=4,
                precision="bfloat16",
                phases=(
                    dict(
                        epochs=10,
                        rates=((".*", 2e-5),),
                        schedule="cosine",
                        warmup=0.1,
                    ),
                ),
                weight_decay=0.01,
                clip=1.0,
                monitor="macro_f1",
                patience=3,
            ),
        )
    )
