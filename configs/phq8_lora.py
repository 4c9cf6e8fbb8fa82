"""PHQ-8 score from an interview: BERT with LoRA, audio and video averaged over time, joined.

python -m jfusion.main --config configs/phq8_lora.py
    A small BERT from scratch with adapters, on the embedded sample of invented interviews: one
    minute on two cores, test RMSE 4.97 (three seeds: 4.92 to 5.00; always the mean: 5.54).

python -m jfusion.prepare --dataset daic_woz --source /path/to/the/corpus
python -m jfusion.main --config configs/phq8_lora.py:daic_woz
    The full recipe on DAIC-WOZ (107 / 35 / 47 interviews), BERT-base. The corpus is given out by
    USC ICT (dcapswoz.ict.usc.edu) to whoever signs its agreement; it may not be passed on.
    Add --config.seeds=5, and --config.folds=5 where the test split has no scores: with so few
    people one run says little.

BERT's [CLS] feature (768), the means of the audio's 74 and of the video's 10 features over the
valid frames, each projected to 512, joined to 1536, then 1536-512-1; mean squared error.
"""

from ml_collections import ConfigDict

# Ten of the 38 video features: head rotation, gaze, and the muscles of smiles and of sadness.
VIDEO = (
    *("pose_Rx", "pose_Ry", "pose_Rz", "gaze_x_h0", "gaze_y_h0"),
    *("AU06_r", "AU12_r", "AU04_r", "AU15_r", "AU17_r"),
)


def get_config(variant: str = "") -> ConfigDict:
    """The sample's config, or with `daic_woz` the full recipe."""
    if variant == "daic_woz":
        return daic_woz()
    if variant:
        raise ValueError(f"no variant {variant!r}; there is daic_woz, and the sample without one")
    return sample()


def sample() -> ConfigDict:
    """A small BERT on the embedded sample."""
    bert = dict(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    config = recipe(dict(network="bert", sizes=bert), adapters=1e-3, rest=5e-4)
    config.data = dict(source="interviews", group_column="participant")
    config.inputs.transcript.update(max_tokens=128)
    config.train.update(batch_size=16)
    return config


def daic_woz() -> ConfigDict:
    """BERT-base on DAIC-WOZ."""
    bert = dict(network="bert", weights="bert-base-uncased")
    config = recipe(bert, adapters=3e-4, rest=1e-4)
    config.data = dict(source="daic_woz", group_column="participant", on_error="missing")
    config.inputs.transcript.update(max_tokens=256, windows=8)
    config.inputs.audio.update(steps=1000)
    config.inputs.video.update(steps=1000, features=VIDEO)
    config.train.update(batch_size=8, precision="bfloat16")
    return config


def recipe(bert: dict, adapters: float, rest: float) -> ConfigDict:
    """What both have in common, with the learning rates of adapters and of all after them."""
    bert = dict(bert, lora=dict(rank=8, alpha=16.0, dropout=0.1))  # on query and value
    return ConfigDict(
        dict(
            inputs=dict(
                transcript=dict(kind="text", column="transcript", encoder=bert),
                audio=dict(kind="sequence", column="audio", encoder=dict(network="mean_pool")),
                video=dict(kind="sequence", column="video", encoder=dict(network="mean_pool")),
            ),
            targets=dict(
                phq8=dict(
                    kind="regression",
                    column="phq8",
                    limits=(0.0, 24.0),
                    cut=(10.0,),
                    loss="mse",
                )
            ),
            fusion=dict(
                kind="concat",
                project=512,
                norm="none",
                hidden=(512,),
                dropout=0.0,
                modality_dropout=0.1,
            ),
            train=dict(
                phases=(
                    dict(
                        epochs=30,
                        rates=(
                            ("encoders/transcript/.*/lora_[ab]", adapters),
                            ("encoders/transcript/.*", 0.0),
                            (".*", rest),
                        ),
                    ),
                ),
                monitor="rmse",
            ),
        )
    )
