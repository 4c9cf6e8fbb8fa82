"""Movie genres from the poster: ConvNeXt-Tiny, then Linear, ReLU, dropout, Linear.

python -m jfusion.main --config configs/genre_image.py
    A compact encoder from scratch on the embedded sample.

python -m jfusion.prepare --dataset mm_imdb --source /path/to/mmimdb
python -m jfusion.main --config configs/genre_image.py:mm_imdb
    The full recipe: pretrained ConvNeXt-Tiny on MM-IMDb posters at 224 x 224, 23 genres. To
    train only the last stage and the head, add
    --config.train.phases.0.rates='((".*/stages/[0-2]/.*|.*/embeddings/.*", 0), (".*", 1e-4))'
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
            fusion=dict(kind="concat", hidden=(128,), dropout=0.1),
            train=dict(
                batch_size=64,
                phases=(dict(epochs=20, rates=((".*", 2e-3),)),),
                patience=6,
            ),
        )
    )


def mm_imdb() -> ConfigDict:
    """ConvNeXt-Tiny on MM-IMDb."""
    return ConfigDict(
        dict(
            data=dict(source="mm_imdb", on_error="skip"),
            inputs=dict(
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
            fusion=dict(kind="concat", hidden=(512,), dropout=0.3),
            train=dict(
                batch_size=192,
                accumulate=4,
                precision="bfloat16",
                phases=(
                    dict(
                        epochs=10,
                        rates=((".*", 1e-4),),
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
