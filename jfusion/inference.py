"""Runs a model that was read from its folder, as `evaluate` and `predict` do."""

from collections.abc import Mapping
from typing import Any

import jax

from jfusion.artifact import Artifact
from jfusion.config import MultiLabel
from jfusion.data import pipeline
from jfusion.data.split import LabelColumn, Split
from jfusion.training import assemble, evaluation, losses, sharding, steps
from jfusion.training.state import Network


def run(model: Artifact, split: Split) -> evaluation.Outputs:
    """Applies a model to the rows of a split that take part.

    The batch size and the compute type are those of the run that made the model, so on the same
    kind of device the outputs have the same bits.

    Args:
        model: The model.
        split: The rows; losses are computed where it has targets.

    Returns:
        The outputs.
    """
    mesh = sharding.make_mesh()
    network = Network(model.spec, assemble.DTYPES[model.precision])
    batch_size = -(-model.batch_size // mesh.size) * mesh.size
    batches = pipeline.batches(
        split,
        batch_size,
        shuffle=False,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    step = steps.make_eval_step(network, loss_functions(model) if split.targets else None)
    params, stats = sharding.replicate((model.params, model.stats), mesh)
    return evaluation.run(step, params, stats, batches, mesh)


def score(model: Artifact, split: Split, outputs: evaluation.Outputs) -> evaluation.Scores:
    """The metrics of a split, as the training run computes them."""
    sections = target_sections(model)
    thresholds = {name: section.threshold for name, section in sections.items()}
    weights = {name: section.weight for name, section in sections.items()}
    return evaluation.score(outputs, split.targets, thresholds, weights)


def target_sections(model: Artifact) -> dict[str, MultiLabel]:
    """The targets' config sections, with their labels."""
    return {
        name: MultiLabel(
            **{k: v for k, v in target.items() if k not in ("labels", "pos_weight")},
            labels=tuple(target["labels"]),
        )
        for name, target in model.targets.items()
    }


def label_columns(model: Artifact) -> dict[str, LabelColumn]:
    """Where the targets of a table lie."""
    return {
        name: LabelColumn(section.column, section.delimiter, section.labels)
        for name, section in target_sections(model).items()
    }


def loss_functions(model: Artifact) -> Mapping[str, tuple[float, Any]]:
    """Weight and per-row loss of each target."""
    return {
        name: (section.weight, losses.build(section, model.targets[name]["pos_weight"]))
        for name, section in target_sections(model).items()
    }
