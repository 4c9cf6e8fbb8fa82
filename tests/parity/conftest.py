"""Comparing a network with its reference in PyTorch, through the real loader."""

import functools
import importlib.abc
import importlib.machinery
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.pretrained import loader, networks
from tests.modules import run


class Port:
    """jfusion's network with the weights of a folder.

    Attributes:
        params: The parameters by path.
    """

    def __init__(self, network_class, folder):
        self.network = networks.describe(folder)
        model = nnx.eval_shape(lambda: network_class(**self.network.sizes, rngs=nnx.Rngs(0)))
        model = nnx.view(model, deterministic=True)
        self._graph, state = nnx.split(model)
        self._paths = {"/".join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}
        self.targets = trees.flatten(nnx.to_pure_dict(state))
        self.params = self.load(folder)

    def load(self, folder):
        """Reads tensors that have this network's keys, for example its gradients."""
        return loader.load(folder, self.network.network, self.targets)

    def module(self):
        """The network with its weights."""
        return nnx.merge(self._graph, self._nested(self.params))

    def gradients(self, loss, *args):
        """The gradient of `loss(model, *args)` with respect to every parameter, by path."""
        gradients = _gradients(loss, self._graph, self._nested(self.params), *args)
        return trees.flatten(gradients)

    def _nested(self, params):
        nested = {}
        for path, leaf in params.items():
            *parents, name = self._paths[path]
            tree = nested
            for parent in parents:
                tree = tree.setdefault(parent, {})
            tree[name] = leaf
        return nested


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(loss, graph, params, *args):
    return jax.grad(lambda params: loss(nnx.merge(graph, params), *args))(params)


def randomise(model, seed=0):
    """Draws every parameter of a PyTorch network, so that none is 0, 1 or negligible.

    Freshly built networks have LayerNorms that do nothing, biases of 0 and, in ConvNeXt, blocks
    scaled by 1e-6: comparing those would compare little.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            draw = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                fan_in = value[0].numel()
                value.copy_(draw * (0.02 if "embeddings.weight" in name else fan_in**-0.5))
            elif name.endswith("bias"):
                value.copy_(0.2 * draw)
            else:
                value.copy_(0.7 + 0.2 * draw)
    return model.eval()


def save_gradients(model, folder):
    """Writes a PyTorch network's gradients as a checkpoint, to be read like one."""
    from safetensors.torch import save_file

    folder.mkdir()
    named = model.named_parameters()
    save_file({k: v.grad for k, v in named if v.grad is not None}, folder / "model.safetensors")
    return folder


def assert_near(ours, reference, tolerance, what=""):
    """Checks every number to `tolerance`, absolute and relative."""
    reference = reference.detach().numpy() if hasattr(reference, "detach") else reference
    np.testing.assert_allclose(
        np.asarray(ours), reference, rtol=tolerance, atol=tolerance, err_msg=what
    )


def assert_norm_near(ours, theirs):
    """Compares normalisations where epsilon counts: their input varies by a thousandth."""
    import torch

    x = 1e-3 * np.random.default_rng(2).normal(size=(4, *ours.scale.shape)).astype(np.float32)
    reference = torch.nn.functional.layer_norm(
        torch.tensor(x), ours.scale.shape, theirs.weight, theirs.bias, theirs.eps
    )
    assert_near(run(ours, x), reference, 1e-5, "norm")


def assert_gradients_near(ours, reference, tolerance=1e-4):
    """Checks gradients to `tolerance` of the largest of each parameter.

    Some gradients are 0 but for rounding (a key's bias cannot change a softmax), hence the part of
    the largest of all.
    """
    assert ours.keys() == reference.keys()
    largest = max(np.abs(leaf).max() for leaf in reference.values())
    for path, leaf in reference.items():
        scale = np.abs(leaf).max() + 1e-3 * largest
        error = np.abs(np.asarray(ours[path]) - leaf).max() / scale
        assert error <= tolerance, f"{path}: {error:.1e} of its largest gradient"


@pytest.fixture(scope="session")
def timm():
    """The real timm; it imports torchvision for what is not used here, so a stand-in will do."""
    finder = _StandIn("torchvision")
    sys.meta_path.insert(0, finder)
    try:
        timm = pytest.importorskip("timm")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    return timm


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a package whose every submodule, class and constant exists and does nothing."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = _nothing


class _Nothing(type):
    def __getattr__(cls, name):
        return _nothing(name)


def _nothing(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {})
