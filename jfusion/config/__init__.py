"""What an experiment is: every section and its defaults.

A config file (`configs/*.py`) returns plain values and says only what differs from the defaults
here; `config_file.py` reads it and checks it against these classes. Nothing heavy is imported, so
a wrong key or value ends a command at once.
"""

from jfusion.config.checks import ConfigError, RangeError
from jfusion.config.data import Data
from jfusion.config.experiment import Config, Log, to_dict
from jfusion.config.fusion import ConcatFusion, CrossAttentionFusion, Fusion
from jfusion.config.inputs import Encoder, Frames, Image, Lora, Tabular, Text
from jfusion.config.mesh import Mesh
from jfusion.config.targets import (
    Classes,
    Embedding,
    MultiLabel,
    Regression,
    Target,
    metrics_of,
)
from jfusion.config.train import Phase, Train

__all__ = [
    "Classes",
    "ConcatFusion",
    "Config",
    "ConfigError",
    "CrossAttentionFusion",
    "Data",
    "Embedding",
    "Encoder",
    "Frames",
    "Fusion",
    "Image",
    "Log",
    "Lora",
    "Mesh",
    "MultiLabel",
    "Phase",
    "RangeError",
    "Regression",
    "Tabular",
    "Target",
    "Text",
    "Train",
    "metrics_of",
    "to_dict",
]
