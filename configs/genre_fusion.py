"""Movie genres from plot and poster: DistilBERT's [CLS] and ConvNeXt-Tiny's pooled feature, joined.

python -m jfusion.main --config configs/genre_fusion.py
    Compact encoders from scratch on the embedded sample.

python -m jfusion.prepare --dataset mm_imdb --source /path/to/mmimdb
python -m jfusion.main --config configs/genre_fusion.py:mm_imdb
    The full recipe: pretrained encoders on MM-IMDb (15,552 / 2,608 / 7,799 movies), 23 genres.
    Made for one card with bfloat16; on a smaller one raise train.accumulate, and on one
    without bfloat16 set train.precision=float16.
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
    """Compact encoders on the embedded sample of movies."""
    return ConfigDict(
        dict(
            data=dict(source="movies"),
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
                poster=dict(
                    kind="image",
                    column="poster",
                    size=64,
                    encoder=dict(
                        network="convnext",
                        sizes=dict(
                            depths=(1, 1, 2, 1),
                            hidden_sizes=(24, 48, 96, 128),
                            layer_scale_init_value=1.0,
                        ),
                    ),
                ),
            ),
            targets=dict(genres=dict(kind="multilabel", column="genres")),
            fusion=dict(kind="concat", hidden=(128,), dropout=0.1, modality_dropout=0.1),
            train=dict(
                batch_size=64,
                phases=(dict(epochs=20, rates=((".*", 2e-3),)),),
                patience=6,
            ),
        )
    )


def mm_imdb() -> ConfigDict:
    """DistilBERT and ConvNeXt-Tiny on MM-IMDb."""
    return ConfigDict(
        dict(
            data=dict(source="mm_imdb", on_error="missing"),
            inputs=dict(
                plot=dict(
                    kind="text",
                    column="plot",
                    max_tokens=256,
                    encoder=dict(network="distilbert", weights="distilbert-base-uncased"),
                ),
                poster=dict(
                    kind="image",
                    column="poster",
                    size=224,
                    flip=0.5,
                    encoder=dict(
                        network="convnext",
                        weights="timm/convnext_tiny.fb_in1k",
                        sizes=dict(drop_path_rate=0.1),
                    ),
                ),
            ),
            targets=dict(genres=dict(kind="multilabel", column="genres")),
            fusion=dict(kind="concat", hidden=(512,), dropout=0.3, modality_dropout=0.1),
            train=dict(
                batch_size=192,
                accumulate=4,
                precision="bfloat16",
                phases=(
                    dict(
                        epochs=10,
                        rates=(
                            ("encoders/plot/.*", 2e-5),
                            ("encoders/poster/.*", 1e-4),
                            (".*", 1e-4),
                        ),
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
