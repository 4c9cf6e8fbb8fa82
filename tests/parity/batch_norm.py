"""Comparing networks with BatchNorm, whose checkpoints hold more than parameters."""

import copy

import jax
import numpy as np
from flax import nnx

from jfusion import trees
from jfusion.pretrained import loader, networks
from tests.modules import run
from tests.parity.conftest import assert_near


class Port:
    """jfusion's network with the parameters and running statistics of a folder.

    Attributes:
        params: The parameters by path.
        stats: The running statistics by path.
    """

    def __init__(self, network_class, folder, **changes):
        self.network = networks.describe(folder)
        sizes = {**self.network.sizes, **changes}
        self._model = nnx.eval_shape(lambda: network_class(**sizes, rngs=nnx.Rngs(0)))
        kinds = (nnx.Param, nnx.BatchStat)
        shapes = [trees.flatten(nnx.to_pure_dict(nnx.state(self._model, kind))) for kind in kinds]
        loaded = loader.load(folder, self.network.network, {**shapes[0], **shapes[1]})
        self.params, self.stats = ({p: loaded[p] for p in shape} for shape in shapes)

    def load(self, folder, like):
        """Reads tensors that have this network's keys, for example its gradients."""
        return loader.load(folder, self.network.network, like)

    def module(self, training=False):
        """The network with its weights."""
        return nnx.merge(*self._split(training))

    def train(self, loss, *args):
        """One pass in training, without dropout: gradients and statistics, by path."""
        return self._gradients(True, loss, *args)

    def evaluate(self, loss, *args):
        """One pass in evaluation, likewise."""
        return self._gradients(False, loss, *args)

    def _gradients(self, training, loss, *args):
        graph = self._split(training)[0]

        @jax.jit
        def both(params, stats):
            def of_params(params):
                model = nnx.merge(graph, self._nested({**params, **stats}))
                value = loss(model, *args)
                return value, trees.flatten(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

            return jax.grad(of_params, has_aux=True)(params)

        return both(self.params, self.stats)

    def _split(self, training):
        # MobileNetV2 has nothing random to switch off.
        views = dict(deterministic=True, use_running_average=not training)
        model = nnx.view(self._model, raise_if_not_found=False, **views)
        return nnx.graphdef(model), self._nested({**self.params, **self.stats})

    def _nested(self, flat):
        paths = {"/".join(map(str, path)): path for path, _ in self._leaves()}
        nested = {}
        for name, leaf in flat.items():
            *parents, last = paths[name]
            tree = nested
            for parent in parents:
                tree = tree.setdefault(parent, {})
            tree[last] = leaf
        return nested

    def _leaves(self):
        return nnx.to_flat_state(nnx.state(self._model))


def randomise_statistics(model, seed=1):
    """Draws the running statistics of a PyTorch network, which are 0 and 1 at first."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
            elif name.endswith("running_var"):
                # Small ones too, beside which the epsilon counts.
                value.copy_(0.01 + torch.rand(value.shape, generator=generator))
    return model


def compare_outputs(port, pixels, tokens, pooled):
    """The whole network, to 1e-4."""
    encoded = run(port.module(), {"pixels": nhwc(pixels)})
    tokens = nhwc(tokens)
    assert_near(encoded.tokens, tokens.reshape(len(tokens), -1, tokens.shape[-1]), 1e-4, "tokens")
    assert_near(encoded.pooled, pooled, 1e-4, "pooled")
    assert encoded.mask.all() and encoded.mask.shape == encoded.tokens.shape[:2]


def passed_back(model, outputs, pixels, seed=1):
    """Takes the gradient of a weighed sum of a PyTorch network's outputs.

    Args:
        model: The network; its parameters get the gradients.
        outputs: From the network and pixels to the last map [B, D, H, W] and the pooled [B, D].
        pixels: [B, 3, H, W].
        seed: Of the weights.

    Returns:
        The weights of our tokens [B, H * W, D] and of the pooled features [B, D].
    """
    import torch

    tokens, pooled = outputs(model, pixels)
    B, D, H, W = tokens.shape
    rng = np.random.default_rng(seed)
    on_tokens = rng.normal(size=(B, H * W, D)).astype(np.float32)
    on_pooled = 9 * rng.normal(size=pooled.shape).astype(np.float32)
    flat = tokens.permute(0, 2, 3, 1).reshape(on_tokens.shape)
    loss = (flat * torch.tensor(on_tokens)).sum() + (pooled * torch.tensor(on_pooled)).sum()
    loss.backward()
    return on_tokens, on_pooled


def compare_a_pass(port, model, outputs, pixels, training, folder):
    """Compares gradients and running statistics of a pass with those of a PyTorch network.

    In training every BatchNorm divides by what float32 knows of a variance, one after the other, so
    that its own gradients are off by up to a percent. The reference is computed in float64, and
    ours must be as near to it as PyTorch's of float32 are.
    """
    exact = copy.deepcopy(model).double().train(training)
    passed_back(exact, outputs, pixels.double())
    model.train(training)
    on_tokens, on_pooled = passed_back(model, outputs, pixels)

    def weighed(ours):
        encoded = ours({"pixels": nhwc(pixels)})
        return (encoded.tokens * on_tokens).sum() + (encoded.pooled * on_pooled).sum()

    gradients, stats = (port.train if training else port.evaluate)(weighed)

    reference, rough = (
        port.load(_save_gradients(network, folder / name), port.params)
        for name, network in (("exact", exact), ("rough", model))
    )
    largest = max(np.abs(leaf).max() for leaf in reference.values())
    for path, leaf in reference.items():
        scale = np.abs(leaf).max() + 1e-3 * largest
        allowed = max(1e-4, 4 * np.abs(rough[path] - leaf).max() / scale)
        error = np.abs(np.asarray(gradients[path]) - leaf).max() / scale
        assert error <= allowed < 0.1, f"{path}: {error:.1e} of its largest gradient"
    expected = port.load(save_statistics(exact, folder / "statistics"), port.stats)
    for path, value in expected.items():
        assert_near(stats[path], value, 1e-4, path)
        assert training != np.array_equal(value, port.stats[path]), path


def _save_gradients(model, folder):
    """Writes a PyTorch network's gradients as a checkpoint, to be read like one."""
    from safetensors.torch import save_file

    folder.mkdir()
    gradients = {k: v.grad for k, v in model.named_parameters() if v.grad is not None}
    save_file(gradients, folder / "model.safetensors")
    return folder


def save_statistics(model, folder):
    """Writes a PyTorch network's running statistics as a checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir()
    statistics = {k: v.clone() for k, v in model.named_buffers() if "running" in k}
    save_file(statistics, folder / "model.safetensors")
    return folder


def set_momentum(model, momentum):
    """Gives every BatchNorm of a PyTorch network one momentum."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = momentum


def pictures(height, width, rows=2):
    """Random pictures [B, 3, H, W], normalised."""
    import torch

    draw = np.random.default_rng(0).normal(size=(rows, 3, height, width))
    return torch.tensor(draw, dtype=torch.float32)


def nhwc(x):
    """From PyTorch's layout to ours, as NumPy."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def assert_stages_near(ours, theirs, pixels, tolerance=1e-5):
    """Each module on the reference's own input.

    Args:
        ours: Functions from [B, H, W, I] to [B, H', W', O].
        theirs: As many of the reference's, from [B, I, H, W] to [B, O, H', W'].
        pixels: The first's input.
        tolerance: Absolute and relative, of outputs about 1 in size.
    """
    import torch

    x = pixels
    for i, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        with torch.no_grad():
            y = their(x)
        assert_near(jax.jit(our)(nhwc(x)), nhwc(y), tolerance, f"stage {i}")
        x = y
