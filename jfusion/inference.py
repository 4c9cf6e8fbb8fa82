"""Runs a model that was read from its folder, as `evaluate` and `predict` do."""

from collections.abc import Collection, Mapping
from typing import Any

import jax

from jfusion import config
from jfusion.artifact import Artifact
from jfusion.config import Target
from jfusion.data import pipeline, targets
from jfusion.data.split import Split
from jfusion.training import assemble, evaluation, losses, sharding, steps
from jfusion.training.state import Network

_SECTIONS = {
    section.kind: section
    for section in (config.MultiLabel, config.Classes, config.Regression, config.Embedding)
}


class Model:
    """A trained model, ready to run.

    The batch size and the compute type are those of the run that made it, so on the same kind of
    device its outputs have the same bits.

    Args:
        artifact: What was read from its folder.
        alone: Whether, of several processes, each runs it on rows and devices of its own. Otherwise
            all run it on the same rows, shared over all devices.

    Attributes:
        sections: The targets' config sections.
        labels: Label names by target.
        statistics: Of its training split, by target.
        radii: Half-width of the interval around each regression's predictions.
        losses: The loss of each target.
    """

    def __init__(self, artifact: Artifact, alone: bool = False):
        self.sections: dict[str, Target] = {
            name: _SECTIONS[target["section"]["kind"]](**_tuples(target["section"]))
            for name, target in artifact.targets.items()
        }
        self.labels = {name: tuple(x["labels"]) for name, x in artifact.targets.items()}
        self.statistics = {name: x["statistics"] for name, x in artifact.targets.items()}
        self.radii = {n: x["radius"] for n, x in artifact.targets.items() if "radius" in x}
        self.losses = {
            name: losses.build(section, self.statistics[name])
            for name, section in self.sections.items()
        }
        self._shares = (0, 1) if alone else (jax.process_index(), jax.process_count())
        self._mesh = sharding.local_mesh() if alone else sharding.make_mesh()
        self._network = Network(artifact.spec, assemble.DTYPES[artifact.precision])
        self._weights = sharding.replicate((artifact.params, artifact.stats), self._mesh)
        self._batch_size = -(-artifact.batch_size // self._mesh.size) * self._mesh.size
        self._steps = {
            scored: steps.make_eval_step(self._network, self.losses if scored else None)
            for scored in (True, False)
        }

    def targets(self) -> dict[str, targets.TargetColumn]:
        """Where the targets of a table lie."""
        return {
            name: targets.target_of(section, self.labels[name])
            for name, section in self.sections.items()
        }

    def run(self, split: Split, modalities: Collection[str] | None = None) -> evaluation.Outputs:
        """Applies the model to the rows of a split that take part.

        Args:
            split: The rows; losses are computed where it has targets.
            modalities: The only ones that the model is given; None is all.

        Returns:
            The outputs.
        """
        index, count = self._shares
        batches = pipeline.batches(
            split, self._batch_size, shuffle=False, process_index=index, process_count=count
        )
        if modalities is not None:
            batches = evaluation.only(batches, modalities)
        step = self._steps[bool(split.targets)]
        return evaluation.run(step, *self._weights, batches, self._mesh)


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section as JSON keeps it, with its lists as tuples again."""
    return {key: tuple(x) if isinstance(x, list) else x for key, x in section.items()}
