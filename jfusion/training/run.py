"""What stays the same through a run: devices, data, model, losses, and the plan of each phase."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jfusion import artifact, trees
from jfusion.config import Config, ConfigError, Train
from jfusion.data import dataset as data
from jfusion.data import pipeline
from jfusion.data.problems import DataError
from jfusion.data.split import Split
from jfusion.training import assemble, earlier, features, losses, optim, sharding, steps
from jfusion.training.checkpoint import Progress
from jfusion.training.state import Network, State, Tree


@dataclass(frozen=True)
class Plan:
    """A phase, worked out.

    Attributes:
        rates: Peak learning rate of every parameter; 0 is frozen.
        shape: Factor on the rates by step of the phase.
        tx: The optimizer.
        placement: The place of every leaf of the state.
        train_step: The jitted step.
        steps: How many steps the phase has at most.
    """

    rates: dict[str, float]
    shape: Any
    tx: optax.GradientTransformation
    placement: State
    train_step: Any
    steps: int


@dataclass(frozen=True)
class Run:
    """The constant parts of a run.

    Attributes:
        config: The experiment.
        mesh: The devices.
        dataset: The splits.
        folders: Pretrained weights by modality.
        network: The model as functions.
        statistics: What is known of the training split by target, see `assemble.statistics`.
        taken: What comes from earlier runs.
    """

    config: Config
    mesh: Mesh
    dataset: data.Dataset
    folders: Mapping[str, Path]
    network: Network
    statistics: Mapping[str, dict[str, Any]]
    taken: earlier.Taken

    @functools.cached_property
    def losses(self) -> dict[str, losses.Loss]:
        """The loss of each target."""
        return {
            name: losses.build(target, self.statistics[name])
            for name, target in self.config.targets.items()
        }

    @property
    def key(self) -> jax.Array:
        """The run's random key."""
        return jax.random.key(self.config.seed)

    @functools.cached_property
    def eval_step(self) -> Any:
        """The jitted evaluation step."""
        return steps.make_eval_step(self.network, self.losses, self.mesh)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training split."""
        return pipeline.batch_count(len(self.dataset.splits["train"]), self.config.train.batch_size)

    @functools.cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The phases. All are checked here, so that none fails hours into a run."""
        train, plans = self.config.train, []
        specs = sharding.split(self.network.params, self.config.mesh, self.mesh)
        for i, phase in enumerate(train.phases):
            rates = optim.peak_rates(phase, self.network.params, i)
            total = phase.epochs * self.steps_per_epoch
            shape = optim.schedule(phase, total)
            tx = optim.adamw(train, rates, shape)
            state = self._shapes(functools.partial(_first_of_phase, train, rates, tx))
            placement = sharding.placement(state, self.mesh, specs)
            step = steps.make_train_step(self.network, self.losses, train, tx, placement)
            plans.append(Plan(rates, shape, tx, placement, step, total))
        return tuple(plans)

    def first_state(self) -> State:
        """The state at step 0, with what the config takes from checkpoints and earlier runs."""
        weights = assemble.pretrained_weights(self.config, self.network, self.folders)
        weights |= self.taken.weights(self.network)
        # This generator compiles ten times faster than the default; nothing but its speed matters.
        key = jax.random.key(self.config.seed, impl="rbg")
        params, stats = self.network.init(key, weights)
        return self.phase_state(0, params, stats, jnp.int32(0))

    def phase_state(self, phase: int, params: Tree, stats: Tree, step: jax.Array) -> State:
        """The state at the start of a phase: its own split of the parameters, fresh moments."""
        plan = self.plans[phase]
        make = functools.partial(_first_of_phase, self.config.train, plan.rates, plan.tx)
        return jax.jit(make, out_shardings=plan.placement)(params, stats, step)

    def abstract_state(self, progress: Progress) -> State:
        """Shapes, types and placement of the state at some progress."""
        plan = self.plans[progress.phase]
        make = functools.partial(_first_of_phase, self.config.train, plan.rates, plan.tx)
        return sharding.abstract(self._shapes(make), plan.placement)

    def phase_splits(
        self, phase: int, state: State, report: Callable[[str], None], track: features.Track
    ) -> dict[str, Split]:
        """What a phase trains on and is evaluated on: `train` and `val`.

        Args:
            phase: The phase.
            state: A state of it.
            report: Called with a line on every frozen encoder.
            track: See `features.attach`.

        Returns:
            The splits, with the features of frozen encoders in the place of their inputs wherever
            that makes no difference, see `training.features`.
        """
        splits = {name: self.dataset.splits[name] for name in ("train", "val")}
        if not self.config.train.cache_features:
            return splits
        refused = features.plan(self.network, self.plans[phase].rates, splits)
        for name, why in refused.items():
            try:
                if not why:
                    splits = features.attach(
                        self.network,
                        {**state.frozen, **state.stats},
                        name,
                        splits,
                        self.dataset.inputs[name],
                        batch_size=self.config.train.batch_size // self.mesh.size,
                        cache_dir=self.config.data.cache_dir,
                        track=track,
                    )
            except DataError as error:
                why = str(error)
            what = f"features are not cached: {why}" if why else "trains on cached features"
            report(f"phase {phase + 1}: {name}: {what}")
        return splits

    def train_batches(
        self, progress: Progress, split: Split | None = None
    ) -> grain.DatasetIterator:
        """The training batches of a phase, placed on the devices a little ahead of their use.

        Args:
            progress: Where the run stands.
            split: The phase's own form of the training split; None: as it was read.
        """
        host = pipeline.batches(
            split or self.dataset.splits["train"],
            self.config.train.batch_size,
            shuffle=True,
            seed=self.config.seed + 2**16 * progress.phase,  # other seeds stay apart
            epochs=self.config.train.phases[progress.phase].epochs,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        placed = host.map(functools.partial(sharding.place_batch, mesh=self.mesh))
        return iter(grain.experimental.ThreadPrefetchIterDataset(placed, prefetch_buffer_size=2))

    def eval_batches(self, split: Split) -> grain.IterDataset:
        """The batches of a split in order, in host memory."""
        return pipeline.batches(
            split,
            self.config.train.batch_size,
            shuffle=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def artifact(self, state: State, radii: Mapping[str, float | None]) -> artifact.Artifact:
        """The model of a state, as it is kept in `model/`.

        Args:
            state: The state.
            radii: Half-width of the interval around each regression's predictions.
        """
        config = self.config
        targets = {
            name: {
                "section": asdict(target),
                "labels": list(self.dataset.labels[name]),
                "statistics": self.statistics[name],
                **({"radius": radii[name]} if name in radii else {}),
            }
            for name, target in config.targets.items()
        }
        return artifact.Artifact(
            spec=self.network.spec,
            inputs=dict(self.dataset.inputs),
            targets=targets,
            precision=config.train.precision,
            batch_size=config.train.batch_size,
            origin={
                "config": config.name,
                "seed": config.seed,
                "data": asdict(config.data),
                "versions": artifact.versions(),
            },
            params=sharding.fetch(state.evaluated),
            stats=sharding.fetch(state.stats),
        )

    def _shapes(self, make: Callable[..., State]) -> State:
        """The shapes and types of a phase's first state."""
        step = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.eval_shape(make, self.network.params, self.network.stats, step)


def _first_of_phase(
    train: Train,
    rates: Mapping[str, float],
    tx: optax.GradientTransformation,
    params: Tree,
    stats: Tree,
    step: jax.Array,
) -> State:
    """The state at the start of a phase."""
    trainable, frozen = trees.split(params, rates)
    return State(step, trainable, frozen, stats, steps.init_opt_state(train, tx, trainable))


def prepare(config: Config) -> Run:
    """Loads the data, describes the model and checks the whole plan.

    Raises:
        UserError: The config, the data or the weights cannot be used.
    """
    mesh = sharding.make_mesh(config.mesh)
    train = config.train
    sharding.check_batch_size("train.batch_size", train.batch_size, train.accumulate, mesh)
    taken = earlier.find(config)
    folders = assemble.find_pretrained(config, taken.encoders)
    # Checked before the data, which can take minutes.
    assemble.encoder_specs(config, folders, taken.encoders)
    dataset = data.load(config, folders, taken.readers, taken.labels)
    statistics = taken.statistics or assemble.statistics(
        config.targets, dataset.labels, dataset.splits["train"]
    )
    spec = taken.complete(assemble.model_spec(config, dataset, folders, statistics, taken.encoders))
    try:
        network = Network(spec, assemble.DTYPES[train.precision])
    except ValueError as error:
        raise ConfigError(f"config: these numbers make no model: {error}") from error
    run = Run(config, mesh, dataset, folders, network, statistics, taken)
    _ = run.plans  # checked now
    return run
