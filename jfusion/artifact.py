"""The `model/` folder: all that prediction needs, on another machine, without the training data.

model.json             description, inputs, label names, thresholds, origin, checksums
weights.safetensors    parameters and running statistics, float32, by path
tokenizer-<input>.json the tokenizer of each text input
adapter-<input>/       the adapters alone of each encoder that has some, in PEFT's layout
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from jfusion.data.dataset import input_from_spec
from jfusion.data.split import InputReader
from jfusion.errors import UserError
from jfusion.pretrained import peft

FORMAT = 2
PACKAGES = ("jfusion", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class ArtifactError(UserError):
    """A model folder that cannot be used."""


@dataclass(frozen=True)
class Artifact:
    """A trained model as plain data.

    Attributes:
        spec: The model's description, see `models.multimodal.build`.
        inputs: What turns the cells of each modality into arrays.
        targets: By head, its config section with the `labels`, and `pos_weight`.
        precision: Compute type of the evaluation that chose the model.
        batch_size: Its batch size; the same size gives the same bits.
        origin: The config's name, its `data` section and seed, and the versions it was made with.
        params: Parameters by path, float32.
        stats: Running statistics by path.
    """

    spec: dict[str, Any]
    inputs: dict[str, InputReader]
    targets: dict[str, dict[str, Any]]
    precision: str
    batch_size: int
    origin: dict[str, Any]
    params: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]


def versions() -> dict[str, str]:
    """The versions of the packages that decide what a model computes."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree that is not installed
    return found


def write(folder: Path, artifact: Artifact) -> None:
    """Writes a model folder, replacing an older one; a half-written one is never left at `folder`.

    Args:
        folder: Where the model goes.
        artifact: The model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a write that was killed
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    tensors = {f"params/{path}": np.asarray(x) for path, x in artifact.params.items()}
    tensors |= {f"stats/{path}": np.asarray(x) for path, x in artifact.stats.items()}
    save_file(tensors, temporary / "weights.safetensors")
    for name, reader in artifact.inputs.items():
        reader.save(temporary, name)
    for name, encoder in artifact.spec["encoders"].items():
        if "lora" in encoder:
            peft.save(
                temporary / f"adapter-{name}",
                _under(f"encoders/{name}/", artifact.params),
                alpha=encoder["lora"]["alpha"],
                dropout=encoder["lora"]["dropout"],
            )
    paths = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(temporary)): _sha256(path) for path in paths}
    description = {
        "format": FORMAT,
        "model": artifact.spec,
        "inputs": {name: reader.spec() for name, reader in artifact.inputs.items()},
        "targets": artifact.targets,
        "precision": artifact.precision,
        "batch_size": artifact.batch_size,
        "origin": artifact.origin,
        "files": files,
    }
    (temporary / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    temporary.chmod(0o755)  # a temporary folder is for its owner only
    for path in temporary.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(temporary, folder)


def read(folder: Path) -> Artifact:
    """Reads a model folder and verifies its files.

    Raises:
        ArtifactError: No such folder, or a file that is missing or not the one that was written.
    """
    description = verify(folder)
    params, stats = weights(folder)
    return Artifact(
        spec=description["model"],
        inputs={
            name: input_from_spec(spec, folder, name)
            for name, spec in description["inputs"].items()
        },
        targets=description["targets"],
        precision=description["precision"],
        batch_size=description["batch_size"],
        origin=description["origin"],
        params=params,
        stats=stats,
    )


def weights(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The parameters and the running statistics of a model folder, not verified, by path."""
    tensors = load_file(folder / "weights.safetensors")
    return _under("params/", tensors), _under("stats/", tensors)


def verify(folder: Path) -> dict[str, Any]:
    """Checks a model folder's files against their checksums; returns what `model.json` says."""
    path = folder / "model.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no model.json; give a run's model folder (RUN/model)")
    try:
        description = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None
    if description.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} has format {description.get('format')!r}, this version reads {FORMAT}"
        )
    for name, digest in description["files"].items():
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing; copy the whole folder")
        if _sha256(folder / name) != digest:
            raise ArtifactError(f"{folder / name} is not the file that was written; copy it again")
    return description


def fingerprint(folder: Path) -> str:
    """A digest that tells one model folder from another."""
    return _sha256(folder / "model.json")  # which has the digests of all other files


def _under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
