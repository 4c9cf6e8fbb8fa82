"""The training state, and a model as plain functions over flat dicts of arrays."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion import trees
from jfusion.models import multimodal
from jfusion.models.batch_norm import BatchNorm

Tree = dict[str, jax.Array]


class State(NamedTuple):
    """All that a training run carries from step to step.

    Attributes:
        step: Number of optimizer steps taken, int32 `[]`.
        params: The trainable parameters, float32, by path.
        frozen: The parameters that get no gradient and have no moments.
        stats: Running statistics of normalisation layers.
        opt_state: `{"adam": optax state, "average": averaged weights or {}, "scale": loss scale or
            {}}`, over `params` only.
    """

    step: jax.Array
    params: Tree
    frozen: Tree
    stats: Tree
    opt_state: dict[str, Any]

    @property
    def evaluated(self) -> Tree:
        """The parameters that evaluation uses: the average where one is kept."""
        return {**self.frozen, **(self.opt_state["average"] or self.params)}


class Network:
    """A model taken apart once: graphs for training and evaluation, parameters as flat dicts.

    Args:
        spec: The model's description, see `models.multimodal.build`.
        dtype: Compute type.

    Attributes:
        params: Abstract parameters by path, float32.
        stats: Abstract running statistics by path.
    """

    def __init__(self, spec: Mapping[str, Any], dtype: jnp.dtype = jnp.float32):
        self.spec, self.dtype = spec, dtype
        model = nnx.eval_shape(lambda: self._build(jax.random.key(0)))
        has_stats = bool(nnx.to_flat_state(nnx.state(model, nnx.BatchStat)))
        self._model, self._has_stats = model, has_stats
        self._graphs: dict[Any, nnx.GraphDef] = {}
        self._keys = {
            "/".join(map(str, path)): path for path, _ in nnx.to_flat_state(nnx.state(model))
        }
        self.params, self.stats = _take_apart(model)

    def init(self, key: jax.Array, given: Mapping[str, Any] | None = None) -> tuple[Tree, Tree]:
        """Draws the parameters and statistics that are not given.

        Args:
            key: Random key.
            given: Ready leaves by path, for example pretrained weights.

        Returns:
            All parameters and all statistics.
        """
        given = dict(given or {})

        @jax.jit
        def draw(key):
            # What is given is not drawn: the compiler drops what is not returned.
            both = _take_apart(self._build(key))
            return [{p: leaf for p, leaf in tree.items() if p not in given} for tree in both]

        params, stats = draw(key)
        for path, leaf in given.items():
            tree = params if path in self.params else stats
            tree[path] = jnp.asarray(leaf, jnp.float32)
        return dict(sorted(params.items())), dict(sorted(stats.items()))

    def apply(
        self,
        params: Tree,
        stats: Tree,
        batch: Mapping[str, Any],
        key: jax.Array | None = None,
        frozen: Collection[str] = (),
    ) -> tuple[multimodal.Answers, Tree]:
        """Runs the model.

        Args:
            params: All parameters, trainable and frozen.
            stats: Running statistics.
            batch: `inputs` and `present` of a batch, and `weight` where rows are padding.
            key: Random key; given, the model trains (dropout, flips, statistics of the batch); None
                evaluates.
            frozen: Paths of parameters that do not train: a BatchNorm whose scale is among them
                uses and keeps its running statistics, and an encoder that is all among them drops
                nothing if its description has `eval_when_frozen`.

        Returns:
            What the model says of the batch, and the statistics after it.
        """
        graph = self._graph(key is not None, frozenset(frozen))
        model = nnx.merge(graph, self._nest({**params, **stats}))
        rngs = None if key is None else nnx.Rngs(dropout=key)
        answers = model(batch["inputs"], batch["present"], batch.get("weight"), rngs=rngs)
        return answers, _take_apart(model)[1] if stats else stats

    def encode(
        self, name: str, weights: Tree, arrays: Mapping[str, Any], train: bool = False
    ) -> jax.Array:
        """Runs one encoder alone, on rows that all have its modality.

        Args:
            name: The modality.
            weights: The encoder's parameters and statistics, by their paths in the whole model.
            arrays: The modality's part of `inputs` of a batch.
            train: Whether to run it as training does where all of it is frozen; then whatever it
                would draw at random is an error.

        Returns:
            The pooled feature, before any layer of its own on it, [B, D].

        Raises:
            ValueError: The encoder draws at random.
        """
        # What is not the encoder's stays abstract: it is not read.
        leaves = {**self.params, **self.stats, **weights}
        graph = self._graph(train, frozenset(self.params) if train else frozenset())
        model = nnx.merge(graph, self._nest(leaves))
        rows = jnp.ones(len(next(iter(arrays.values()))), jnp.float32)
        return model.encode(name, arrays, rows).pooled

    def _graph(self, train: bool, frozen: frozenset[str]) -> nnx.GraphDef:
        """The model's structure in training or evaluation."""
        if (train, frozen) not in self._graphs:
            running = {"use_running_average": not train} if self._has_stats else {}
            model = nnx.view(self._model, deterministic=not train, **running)
            calm = tuple(f"encoders/{name}/" for name in self._evaluated(frozen))
            for keys, module in nnx.iter_modules(model):
                path = "/".join(map(str, keys)) + "/"
                if isinstance(module, BatchNorm) and f"{path}scale" in frozen:
                    module.use_running_average = True
                if isinstance(module, nnx.Dropout) and path.startswith(calm):
                    module.deterministic = True
            self._graphs[train, frozen] = nnx.graphdef(model)
        return self._graphs[train, frozen]

    def _evaluated(self, frozen: frozenset[str]) -> list[str]:
        """The encoders that run as in evaluation, since all of their parameters are frozen."""
        return [
            name
            for name, part in self.spec["encoders"].items()
            if part.get("eval_when_frozen")
            and all(path in frozen for path in self.params if path.startswith(f"encoders/{name}/"))
        ]

    def _build(self, key: jax.Array) -> multimodal.Multimodal:
        return multimodal.build(self.spec, dtype=self.dtype, rngs=nnx.Rngs(params=key))

    def _nest(self, flat: Tree) -> dict:
        nested: dict = {}
        for path, leaf in flat.items():
            *parents, last = self._keys[path]
            node = nested
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = leaf
        return nested


def partition(params: Tree, rates: Mapping[str, float]) -> tuple[Tree, Tree]:
    """Splits parameters into the trainable (rate above 0) and the frozen."""
    return trees.split(params, rates)


def _take_apart(model: nnx.Module) -> tuple[Tree, Tree]:
    return tuple(
        trees.flatten(nnx.to_pure_dict(nnx.state(model, kind)))
        for kind in (nnx.Param, nnx.BatchStat)
    )
