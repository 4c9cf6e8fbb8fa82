"""A model is encoders, one fusion and named heads, and modalities attached to it later."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models import lora, windows
from jfusion.models.attached import Attached
from jfusion.models.bert import Bert, DistilBert
from jfusion.models.convnext import ConvNeXt
from jfusion.models.cross_attention import CrossAttention
from jfusion.models.dense_norm import DenseNorm
from jfusion.models.efficientnet import EfficientNet
from jfusion.models.encoded import Encoded
from jfusion.models.frame_transformer import FrameTransformer
from jfusion.models.fusion import Concat
from jfusion.models.heads import build as build_head
from jfusion.models.layers import next_key
from jfusion.models.mean_pool import MeanPool
from jfusion.models.mobilenet_v2 import MobileNetV2
from jfusion.models.pixels import Pixels
from jfusion.models.tabular import Tabular
from jfusion.models.temporal_cnn import TemporalCNN
from jfusion.models.text_cnn import TextCNN

NETWORKS = {
    "bert": Bert,
    "convnext": ConvNeXt,
    "distilbert": DistilBert,
    "efficientnet": EfficientNet,
    "frame_transformer": FrameTransformer,
    "mean_pool": MeanPool,
    "mobilenet_v2": MobileNetV2,
    "tabular": Tabular,
    "temporal_cnn": TemporalCNN,
    "text_cnn": TextCNN,
}
FUSIONS = {"concat": Concat, "cross_attention": CrossAttention}


class Answers(NamedTuple):
    """What a model says of a batch.

    Attributes:
        heads: Float32 by head: logits `[B, C]`, values `[B, 1]`, vectors `[B, 1 + M, E]`.
        shares: Weight of each modality in the fused feature, float32 `[B]`, where the fusion
            weighs them.
        present: Which of the modalities that the fusion joins the answers rest on, bool `[B]` each:
            those of the batch, without what modality dropout hid.
    """

    heads: dict[str, jax.Array]
    shares: dict[str, jax.Array]
    present: dict[str, jax.Array]


class Multimodal(nnx.Module):
    """Encodes each modality, fuses, and predicts every target.

    An absent modality is a state, not a value: its inputs are zeroed before the encoder, and the
    fusion does not read its features, so that whatever lies in its slot changes nothing.

    Args:
        encoders: The networks by modality name.
        pixels: What prepares the pictures, for the modalities that are pictures.
        dense: The layer on an encoder's pooled feature, for the modalities that have one.
        fusion: The fusion.
        heads: The description of each head, see `heads.build`.
        modality_dropout: Probability, per row and modality, of hiding a present modality in
            training. A row that would lose every modality keeps all that it has.
        attached: What the modalities add that the fusion does not join; they came to a model that
            was trained without them.
    """

    def __init__(
        self,
        encoders: Mapping[str, nnx.Module],
        pixels: Mapping[str, Pixels],
        dense: Mapping[str, DenseNorm],
        fusion: nnx.Module,
        heads: Mapping[str, Mapping[str, Any]],
        modality_dropout: float = 0.0,
        attached: Mapping[str, Attached] | None = None,
        *,
        dtype: jnp.dtype = jnp.float32,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.encoders = nnx.Dict(encoders)
        self.pixels = nnx.Dict(pixels)
        self.dense = nnx.Dict(dense)
        self.fusion = fusion
        self.attached = nnx.Dict(attached or {})
        types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.heads = nnx.Dict(
            {name: build_head(spec, fusion.width, **types) for name, spec in heads.items()}
        )
        self.modality_dropout = modality_dropout
        self.dtype = dtype
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`; a deterministic view hides no modality."""
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self,
        inputs: Mapping[str, Mapping[str, jax.Array]],
        present: Mapping[str, jax.Array],
        weight: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Answers:
        """Predicts every target of a batch.

        Args:
            inputs: The arrays of each modality: `ids` int32 `[B, N]` and `length` int32 `[B]` of a
                text, or `[B, W, N]` and `[B, W]` of one read in windows; `pixels` uint8
                `[B, H, W, 3]` of a picture; `frames` float32 `[B, T, F]` and `valid` bool
                `[B, T, F]` of a sequence. In place of them `features` float32 `[B, V, D]`, what
                `encode` pooled of them, and of pictures that may be flipped also of their
                mirror images (V = 2); for fusions that read no tokens.
            present: Which rows have which modality, bool `[B]` each.
            weight: Float32 `[B]`, 0 for rows that are padding and take no part in the statistics
                of a batch; None: all rows are real.
            rngs: A `dropout` stream, needed in training only.

        Returns:
            What the heads give, and what the fusion made of the modalities.
        """
        if self.modality_dropout and not self.deterministic:
            present = hide_modalities(next_key(rngs), present, self.modality_dropout)
        encoded = {
            name: self._encode(name, inputs[name], present[name], weight, rngs)
            for name in sorted(self.encoders)
        }
        attached = tuple(self.attached)
        joined = {name: present[name] for name in encoded if name not in attached}
        fused = self.fusion({name: encoded[name] for name in joined}, joined, weight, rngs=rngs)
        fused = fused._replace(
            attached=tuple(
                self.attached[name](encoded[name].pooled, present[name]) for name in attached
            )
        )
        outputs = {name: self.heads[name](fused) for name in sorted(self.heads)}
        return Answers(outputs, fused.weights, joined)

    def encode(
        self,
        name: str,
        arrays: Mapping[str, jax.Array],
        rows: jax.Array,
        flipped: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Encoded:
        """Runs one encoder alone, without the layer on its pooled feature.

        Args:
            name: The modality.
            arrays: Its arrays, see `__call__`.
            rows: Float32 `[B]`, which rows count in the statistics of a batch.
            flipped: Which pictures are flipped, bool `[B]`; None: none is.
            rngs: As for `__call__`.
        """
        arrays = dict(arrays)
        if name in tuple(self.pixels):  # `in` alone would also find the methods of nnx.Dict
            arrays = {"pixels": self.pixels[name].prepare(arrays["pixels"], flipped)}
        arrays["rows"] = rows
        encoder = self.encoders[name]
        if "ids" in arrays and arrays["ids"].ndim == 3:
            return windows.encode(encoder, arrays, rngs)
        return encoder(arrays, rngs=rngs)

    def _encode(self, name, arrays, present, weight, rngs) -> Encoded:
        arrays = {key: _zero_where_absent(x, present) for key, x in arrays.items()}
        rows = present.astype(jnp.float32) * (1 if weight is None else weight)
        flipped = None
        if name in tuple(self.pixels):
            flipped = self.pixels[name].draw(len(present), rngs)
        if "features" in arrays:
            encoded = _encoded_before(arrays["features"].astype(self.dtype), flipped)
        else:
            encoded = self.encode(name, arrays, rows, flipped, rngs=rngs)
        if name in tuple(self.dense):
            encoded = encoded._replace(pooled=self.dense[name](encoded.pooled, rows, rngs=rngs))
        return encoded._replace(mask=encoded.mask & present[:, None])


def build(
    spec: Mapping[str, Any],
    *,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
) -> Multimodal:
    """Builds a model from its plain description, as `model.json` keeps it.

    Args:
        spec: `{"encoders": {name: {"network", "sizes", "pixels"?: {"mean", "std", "flip"},
            "lora"?: {"patterns", "rank", "alpha", "dropout"}, "eval_when_frozen"?: bool (see
            `training.state.Network`),
            "dense"?: {"out_features", "dropout"}}},
            "fusion": {"kind", ...}, "modality_dropout": float, "heads": {name: {"kind", ...}},
            "attached"?: names of encoders}`: of those, the features are not fused but added.
        dtype: Compute type.
        param_dtype: Type of the parameters.
        rngs: A `params` stream.

    Returns:
        The model, with freshly drawn parameters.
    """
    types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
    encoders, pixels, dense = {}, {}, {}
    for name, part in sorted(spec["encoders"].items()):
        encoders[name] = NETWORKS[part["network"]](**part["sizes"], **types)
        if "lora" in part:
            lora.add(encoders[name], **part["lora"], **types)
        if "pixels" in part:
            pixels[name] = Pixels(**part["pixels"], dtype=dtype)
        if "dense" in part:
            dense[name] = DenseNorm(encoders[name].width, **part["dense"], **types)
    fusion_spec = dict(spec["fusion"])
    widths = {name: dense.get(name, encoder).width for name, encoder in encoders.items()}
    added = {name: widths.pop(name) for name in sorted(spec.get("attached", ()))}
    fusion = FUSIONS[fusion_spec.pop("kind")](widths, **fusion_spec, **types)
    attached = {name: Attached(width, fusion.width, **types) for name, width in added.items()}
    parts = encoders, pixels, dense, fusion, spec["heads"], spec["modality_dropout"], attached
    return Multimodal(*parts, **types)


def hide_modalities(
    key: jax.Array, present: Mapping[str, jax.Array], rate: float
) -> dict[str, jax.Array]:
    """Hides each present modality with probability `rate`, row by row, never all of a row's."""
    names = sorted(present)
    before = jnp.stack([present[name] for name in names])  # [M, B]
    after = before & ~jax.random.bernoulli(key, rate, before.shape)
    after = jnp.where(after.any(axis=0)[None], after, before)
    return dict(zip(names, after, strict=True))


def _zero_where_absent(x: jax.Array, present: jax.Array) -> jax.Array:
    present = present.reshape(present.shape + (1,) * (x.ndim - 1))
    return jnp.where(present, x, jnp.zeros((), x.dtype))


def _encoded_before(features: jax.Array, flipped: jax.Array | None) -> Encoded:
    """One of the V features of each row, `[B, V, D]`, as its only token."""
    pooled = features[:, 0]
    if flipped is not None:
        pooled = jnp.where(flipped[:, None], features[:, 1], pooled)
    return Encoded(pooled[:, None], jnp.ones((len(pooled), 1), bool), pooled)
