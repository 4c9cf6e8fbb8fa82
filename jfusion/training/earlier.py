"""What a run takes from the models of earlier runs: encoders, or a whole model to extend.

An encoder comes with all that makes it work: its description, its weights and statistics, and what
turns cells into the arrays that it was trained on. A config says again what it takes, and where it
says something else it is refused, so that it never describes a model that is not there.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jfusion import artifact
from jfusion.artifact import ArtifactError
from jfusion.config import (
    Classes,
    Config,
    ConfigError,
    Encoder,
    Frames,
    Image,
    MultiLabel,
    Tabular,
    Text,
)
from jfusion.data import copies
from jfusion.data.dataset import input_from_spec
from jfusion.data.split import InputReader
from jfusion.models.lora import is_adapter
from jfusion.pretrained import networks
from jfusion.training import assemble, seen_rows
from jfusion.training.state import Network

# What a reader's spec shares with the section of its input, by the section's kind.
_SHARED = {
    "text": ("max_tokens", "windows"),
    "tokens": ("max_tokens", "windows", "vocabulary"),
    "image": ("size", "crop", "trim"),
    "sequence": ("steps",),
    "tabular": (),
}
_FUSION_RATES = ("dropout", "dropouts", "modality_dropout")
_WEIGHTS_OF = {MultiLabel: "pos_weight", Classes: "class_weight"}


class Place(NamedTuple):
    """Where something is taken from.

    Attributes:
        folder: A model folder.
        name: The modality there, or the path of a leaf.
    """

    folder: Path
    name: str


@dataclass(frozen=True)
class Taken:
    """What a run takes from earlier ones.

    Attributes:
        encoders: The description of each encoder that is taken, as the model's holds it.
        readers: What turns the cells of its modality into arrays, from the config's own columns.
        places: Where it is taken from.
        base: The folder of the model that the other inputs are attached to.
        model: What its `model.json` says.
    """

    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    readers: dict[str, InputReader] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    base: Path | None = None
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, Sequence[str]]:
        """Names of labels or classes by target, where a whole model is taken."""
        return {name: target["labels"] for name, target in self.model.get("targets", {}).items()}

    @property
    def statistics(self) -> dict[str, dict[str, Any]]:
        """What it knows of its training split by target, see `assemble.statistics`."""
        return {name: x["statistics"] for name, x in self.model.get("targets", {}).items()}

    def complete(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """A model's description with the parts of the model that its new inputs are attached to.

        Args:
            spec: See `assemble.model_spec`.

        Raises:
            ConfigError: A target asks for another head than it has there.
        """
        if self.base is None:
            return dict(spec)
        there = self.model["model"]
        for name, head in spec["heads"].items():
            if _plain(head) != there["heads"][name]:
                raise ConfigError(
                    f"config.targets.{name}: {self.base} has {_numbers(there['heads'][name])}, "
                    f"this config asks for {_numbers(head)}"
                )
        rates = {rate: spec["fusion"][rate] for rate in _FUSION_RATES if rate in there["fusion"]}
        new = [name for name in spec["encoders"] if name not in there["encoders"]]
        return {
            **spec,
            "fusion": {**there["fusion"], **rates},
            "attached": sorted([*there.get("attached", ()), *new]),
        }

    def weights(self, network: Network) -> dict[str, np.ndarray]:
        """The parameters and statistics that are taken, by the paths of the new model.

        Adapters that an encoder did not have before are left out: they start from nothing.

        Raises:
            ArtifactError: A model folder lacks some, or has them in another shape.
        """
        found: dict[str, np.ndarray] = {}
        read: dict[Path, dict[str, np.ndarray]] = {}
        for path, leaf in {**network.params, **network.stats}.items():
            origin = self._origin(path)
            if origin is None:
                continue
            folder, key = origin
            if folder not in read:
                params, stats = artifact.weights(folder)
                read[folder] = {**params, **stats}
            if key in read[folder]:
                found[path] = read[folder][key]
                if found[path].shape != leaf.shape:
                    raise ArtifactError(
                        f"{folder}: {key} is {found[path].shape}, the model needs {leaf.shape}"
                    )
            elif not is_adapter(path):
                raise ArtifactError(f"{folder} holds no {key}, which the model needs")
        return found

    def _origin(self, path: str) -> Place | None:
        """Where a leaf is taken from, with its path there; None: it is new."""
        part, name, rest = [*path.split("/", 2), "", ""][:3]
        own = part in ("encoders", "dense", "attached")  # of a modality
        if own and name in self.places and part != "attached":
            place = self.places[name]
            return Place(place.folder, f"{part}/{place.name}/{rest}")
        if self.base is None or (own and name not in self.model["model"]["encoders"]):
            return None
        return Place(self.base, path)


def find(config: Config) -> Taken:
    """Finds, verifies and compares with the config all that it takes from earlier runs.

    Args:
        config: The experiment.

    Raises:
        ArtifactError: A model folder is not there, or damaged.
        ConfigError: It holds something else than the config asks for, or has learnt rows that are
            to be tested.
    """
    base, models, places = None, {}, {}
    if config.attach_to:
        base = copies.local(config.attach_to, config.data.cache_dir)
        models[base] = _verify("config.attach_to", base, config)
        _require_extension(config, models[base])
        places = {name: Place(base, name) for name in models[base]["inputs"]}
    for name, part in config.inputs.items():
        if part.encoder.init_from and name not in places:
            key = f"config.inputs.{name}.encoder.init_from"
            places[name] = place = _place(part.encoder.init_from, name, config.data.cache_dir)
            if place.folder not in models:
                models[place.folder] = _verify(key, place.folder, config)
            _require_input(key, place, models[place.folder])
    encoders, readers = {}, {}
    for name, (folder, other) in places.items():
        key, part, model = f"config.inputs.{name}", config.inputs[name], models[folder]
        encoders[name] = _encoder_spec(key, part, model["model"]["encoders"][other], folder)
        if config.fusion.kind != "concat" and not config.attach_to:
            encoders[name].pop("dense", None)  # this fusion reads tokens
        reader = _reader_spec(key, part, model["inputs"][other], folder)
        readers[name] = input_from_spec(reader, folder, other)
    return Taken(encoders, readers, places, base, models.get(base, {}))


def _place(text: str, name: str, cache_dir: str) -> Place:
    """Reads `RUN/model` and `RUN/model:name`; what is in a bucket is copied."""
    folder, colon, other = text.rpartition(":")
    if colon and other.isidentifier() and not Path(text).is_dir():
        return Place(copies.local(folder, cache_dir), other)
    return Place(copies.local(text, cache_dir), name)


def _require_input(key: str, place: Place, model: Mapping[str, Any]) -> None:
    if place.name not in model["inputs"]:
        raise ConfigError(
            f"{key}: {place.folder} has no input {place.name!r}, it has "
            f"{', '.join(model['inputs'])}; write {place.folder}:NAME"
        )


def _verify(key: str, folder: Path, config: Config) -> dict[str, Any]:
    try:
        model = artifact.verify(folder)
    except ArtifactError as error:
        raise ArtifactError(f"{key}: {error}") from None
    seen_rows.require_apart(key, folder, config, model["origin"])
    return model


def _require_extension(config: Config, model: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` unless the config is that of a model with some more inputs."""
    where, inputs = config.attach_to, model["inputs"]
    for name in inputs:
        if name not in config.inputs:
            raise ConfigError(f"config.inputs.{name}: missing; {where} reads it, keep its section")
    if set(config.inputs) == set(inputs):
        raise ConfigError(
            f"config.attach_to: the config has no input that {where} does not have; add its "
            "section to config.inputs"
        )
    if set(config.targets) != set(model["targets"]):
        raise ConfigError(
            f"config.targets: {', '.join(config.targets)}, but {where} has "
            f"{', '.join(model['targets'])}"
        )
    for name, section in config.targets.items():
        _require_target(f"config.targets.{name}", section, model["targets"][name], where)
    fusion = _plain(asdict(config.fusion))
    there = model["model"]["fusion"]
    for name, value in fusion.items():
        if name not in _FUSION_RATES and value != there.get(name, value):
            raise _differs(f"config.fusion.{name}", value, there[name], where)


def _require_target(key: str, section: Any, there: Mapping[str, Any], where: str) -> None:
    if section.kind != there["section"]["kind"]:
        raise _differs(f"{key}.kind", section.kind, there["section"]["kind"], where)
    labels = getattr(section, "labels", ())
    if labels and list(labels) != there["labels"]:
        raise _differs(f"{key}.labels", labels, tuple(there["labels"]), where)
    weigh = _WEIGHTS_OF.get(type(section))
    weighed = weigh in there["statistics"]
    if weigh and getattr(section, weigh) != weighed:
        raise _differs(f"{key}.{weigh}", not weighed, weighed, where)


def _encoder_spec(key: str, part: Any, there: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """An encoder's description as it is there, with the rates that the config has."""
    encoder: Encoder = part.encoder
    key_of, kind = f"{key}.encoder", encoder.network
    if there["network"] != kind:
        raise ConfigError(f"{key_of}.network: {kind!r}, but {where} holds {there['network']!r}")
    sizes = {name: tuple(x) if isinstance(x, list) else x for name, x in there["sizes"].items()}
    described = networks.Network(kind, {**networks.DEFAULTS[kind], **sizes})
    assemble.check_sizes(f"{key_of}.sizes", encoder, described)
    rates = {name: x for name, x in encoder.sizes.items() if name in assemble.RATES}
    spec = {**there, "sizes": {**there["sizes"], **rates}}
    spec.pop("eval_when_frozen", None)
    if encoder.eval_when_frozen:
        spec["eval_when_frozen"] = True
    if encoder.dense:
        width = there.get("dense", {}).get("out_features", 0)
        if encoder.dense != width:
            raise _differs(f"{key_of}.dense", encoder.dense, width, where)
        spec["dense"] = {**there["dense"], "dropout": encoder.dense_dropout}
    if encoder.lora.rank:
        lora = asdict(encoder.lora)
        del lora["weights"]
        for name, value in _plain(lora).items():
            if "lora" in there and name != "dropout" and value != there["lora"][name]:
                raise _differs(f"{key_of}.lora.{name}", value, there["lora"][name], where)
        spec["lora"] = lora
    if isinstance(part, Image):
        for name in ("mean", "std"):
            value = list(getattr(part, name))
            if value and value != there["pixels"][name]:
                raise _differs(f"{key}.{name}", value, there["pixels"][name], where)
        spec["pixels"] = {**there["pixels"], "flip": part.flip}
    return spec


def _reader_spec(
    key: str,
    part: Text | Image | Frames | Tabular,
    there: Mapping[str, Any],
    where: Path,
) -> dict[str, Any]:
    """What turns cells into arrays as it is there, but from the config's columns."""
    kind = "tokens" if isinstance(part, Text) and part.ids else part.kind
    if there["kind"] != kind:
        raise _differs(f"{key}.{'ids' if kind == 'tokens' else 'kind'}", kind, there["kind"], where)
    for name in _SHARED[kind]:
        if getattr(part, name) != there[name]:
            raise _differs(f"{key}.{name}", getattr(part, name), there[name], where)
    if isinstance(part, Frames) and part.features and list(part.features) != there["features"]:
        raise _differs(f"{key}.features", list(part.features), there["features"], where)
    if not isinstance(part, Tabular):
        return {**there, "column": part.column}
    for name in ("numbers", "categories"):
        one, other = getattr(part, name), there[name]
        if len(one) != len(other):
            raise _differs(f"{key}.{name}", list(one), other, where)
    if _places(part.log, part.numbers) != _places(there["log"], there["numbers"]):
        raise _differs(f"{key}.log", list(part.log), there["log"], where)
    own = {name: list(getattr(part, name)) for name in ("numbers", "categories", "log")}
    return {**there, **own}


def _places(chosen: Collection[str], columns: Sequence[str]) -> list[int]:
    return [place for place, column in enumerate(columns) if column in chosen]


def _differs(key: str, asked: Any, there: Any, where: Path | str) -> ConfigError:
    return ConfigError(f"{key}: {asked!r}, but {where} has {there!r}")


def _plain(value: Any) -> Any:
    """A value as JSON keeps it."""
    return json.loads(json.dumps(value))


def _numbers(spec: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in spec.items())
