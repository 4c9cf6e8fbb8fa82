"""The same steps in PyTorch, with transformers' networks from their config, and PEFT.

The twin gets what PyTorch offers: channels_last, fused AdamW, automatic mixed precision, and
`torch.compile` where a compiler works. Each form that fits the case is tried, the fastest is used.
"""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping

import peft
import torch
import transformers
from absl import logging
from torch import nn

from benchmarks import torch_losses
from benchmarks.cases import CENTRE, CLIP, DECAY, MEAN, RATE, SPREAD, STD, Case, outputs
from benchmarks.torch_attention import CrossAttention
from benchmarks.torch_frames import TemporalCNN, masked_mean
from jfusion.config import ConcatFusion, Embedding, Regression

Inputs = dict[str, dict[str, torch.Tensor]]
Step = Callable[[], torch.Tensor]
Build = Callable[[Case, torch.memory_format, bool], Step]
"""Builds a step in a memory format, with or without `torch.compile`."""


class Twin(nn.Module):
    """The encoders of a case, their fusion and a head per target."""

    def __init__(self, case: Case):
        super().__init__()
        self.targets, self.hidden_rate = case.targets, case.fusion.modality_dropout
        widths = dict(case.frames)
        if case.text:
            self.text = _text(case)
            widths["text"] = self.text.config.hidden_size
        if case.image:
            self.image, widths["image"] = _image(case)
            self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(1, 3, 1, 1))
            self.register_buffer("std", 255 * torch.tensor(STD).reshape(1, 3, 1, 1))
        self.cnns = nn.ModuleDict()
        if case.cnn:
            self.cnns.update({n: TemporalCNN(f, **case.cnn) for n, f in case.frames.items()})
            widths |= {name: case.cnn["width"] for name in case.frames}
        self.names = sorted(widths)
        fusion = Concat if isinstance(case.fusion, ConcatFusion) else CrossAttention
        self.fusion = fusion({name: widths[name] for name in self.names}, case.fusion)
        self.heads = nn.ModuleDict(
            {n: nn.Linear(self.fusion.width, outputs(t)) for n, t in case.targets.items()}
        )

    def forward(self, inputs: Inputs) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """What the heads say, float32, and which modalities it rests on, bool [B, M].

        Args:
            inputs: What the case has of `text` (`ids`, `mask`), `image` (`pixels`) and sequences
                (`frames`, `valid`).
        """
        first = next(iter(inputs[self.names[0]].values()))
        present = torch.ones(len(first), len(self.names), dtype=torch.bool, device=first.device)
        if self.training and self.hidden_rate:
            kept = torch.rand(present.shape, device=first.device) >= self.hidden_rate
            present = torch.where(kept.any(dim=1, keepdim=True), kept, present)
        here = dict(zip(self.names, present.unbind(dim=1), strict=True))
        if isinstance(self.fusion, CrossAttention):
            tokens = {name: self._tokens(name, inputs[name]) for name in self.names}
            masks = {name: _mask(inputs[name]) for name in self.names}
            joint, each = self.fusion(tokens, masks, here)
        else:
            pooled = {name: self._pooled(name, inputs[name]) for name in self.names}
            joint, each = self.fusion(pooled, here), []
        return {name: self._answer(name, joint, each) for name in self.heads}, present

    def _tokens(self, name: str, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        if name == "text":
            # transformers looks into the mask, and on the meta device it has no values.
            mask = None if arrays["mask"].is_meta else arrays["mask"]
            return self.text(input_ids=arrays["ids"], attention_mask=mask).last_hidden_state
        return self.cnns[name](arrays["frames"], arrays["valid"])

    def _pooled(self, name: str, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        if name == "text":
            return self._tokens(name, arrays)[:, 0]
        if name == "image":
            pixels = (arrays["pixels"].float() - self.mean) / self.std
            return self.image(pixel_values=pixels).pooler_output
        return masked_mean(arrays["frames"], arrays["valid"])

    def _answer(self, name: str, joint: torch.Tensor, each: list[torch.Tensor]) -> torch.Tensor:
        match self.targets[name]:
            case Regression():
                return CENTRE + SPREAD * self.heads[name](joint).float()
            case Embedding():
                vectors = self.heads[name](torch.stack([joint, *each], dim=1))
                return nn.functional.normalize(vectors.float(), dim=-1)
            case _:
                return self.heads[name](joint).float()


class Concat(nn.Module):
    """The pooled features joined, and fully connected layers."""

    def __init__(self, widths: Mapping[str, int], fusion: ConcatFusion):
        super().__init__()

        def linear(i: int, o: int) -> list[nn.Module]:
            norm = {"none": [], "layer": [nn.LayerNorm(o, eps=1e-5)]}[fusion.norm]
            return [nn.Linear(i, o), *norm]

        # Without modality dropout nothing is absent here, and nothing need stand for it.
        absent = widths if fusion.modality_dropout else {}
        self.missing = nn.ParameterDict({n: 0.02 * torch.randn(w) for n, w in absent.items()})
        self.projections = nn.ModuleDict()
        if fusion.project:
            for name, width in widths.items():
                self.projections[name] = nn.Sequential(*linear(width, fusion.project))
            widths = dict.fromkeys(widths, fusion.project)
        sizes = [sum(widths.values()), *fusion.hidden]
        rates = fusion.dropouts or [fusion.dropout] * len(fusion.hidden)
        layers = []
        for (i, o), rate in zip(itertools.pairwise(sizes), rates, strict=True):
            layers += [*linear(i, o), nn.ReLU(), nn.Dropout(rate)]
        self.layers = nn.Sequential(*layers)
        self.width = sizes[-1]

    def forward(
        self, pooled: dict[str, torch.Tensor], present: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Joins [B, D] of the modalities, where they are present [B], to [B, F]."""
        x = dict(pooled)
        for name, missing in self.missing.items():
            x[name] = torch.where(present[name][:, None], x[name], missing)
        for name, projection in self.projections.items():
            x[name] = projection(x[name])
        return self.layers(torch.cat(list(x.values()), dim=1))


def forms(build: Build, case: Case, compiled: bool = True) -> Iterator[tuple[str, Step]]:
    """The forms of a step that may be fastest, by name, each with new weights.

    Args:
        build: `train_step` or `inference`.
        case: What to run.
        compiled: Also with `torch.compile`. A form that does not compile here is left out, with a
            warning.
    """
    memory_formats = {"": torch.contiguous_format}
    if case.image:
        memory_formats["channels_last"] = torch.channels_last
    for name, memory_format in memory_formats.items():
        yield name or "eager", build(case, memory_format, False)
        if compiled:
            try:
                step = build(case, memory_format, True)
                step()
            except Exception as error:
                # Compilers fail in many ways and none of them matters to what is measured.
                logging.warning("torch.compile does not work here: %s", str(error).splitlines()[0])
                compiled = False
            else:
                yield f"compile {name}".strip(), step


def train_step(case: Case, memory_format: torch.memory_format, compiled: bool) -> Step:
    """Builds a step: forward, backward, clipping and AdamW.

    Returns:
        A function that takes one optimizer step and returns its loss.
    """
    device = _device()
    torch.manual_seed(0)
    twin = Twin(case).to(device, memory_format=memory_format).train()
    inputs, truth = arrays(case, device, memory_format)
    trained = [p for p in twin.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)

    def loss_of(inputs: Inputs, truth: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            answers, present = twin(inputs)
        return torch_losses.total(case.targets, answers, truth, present)

    if compiled:
        loss_of = torch.compile(loss_of)

    def one_step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        return loss.detach()

    return one_step


def inference(case: Case, memory_format: torch.memory_format, compiled: bool) -> Step:
    """Builds a pass without gradients, in evaluation mode.

    Returns:
        A function that makes one pass and returns what one of the heads says.
    """
    device = _device()
    torch.manual_seed(0)
    twin = Twin(case).to(device, memory_format=memory_format).train(False)
    inputs, _ = arrays(case, device, memory_format)

    def answer(inputs: Inputs) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            answers, _ = twin(inputs)
        return next(iter(answers.values()))

    if compiled:
        answer = torch.compile(answer)

    @torch.inference_mode()
    def one_step() -> torch.Tensor:
        return answer(inputs)

    return one_step


def finish(result: torch.Tensor) -> float:
    """Waits for a step, as reading a number of its result does."""
    return result.flatten()[0].item()


def arrays(
    case: Case, device: str, memory_format: torch.memory_format
) -> tuple[Inputs, dict[str, torch.Tensor]]:
    """The arrays of the modalities and those of the targets."""
    inputs = {}
    for name, parts in case.inputs().items():
        tensors = {key: torch.from_numpy(array) for key, array in parts.items()}
        if name == "text":
            real = torch.arange(case.tokens) < tensors["length"][:, None]
            tensors = {"ids": tensors["ids"].long(), "mask": real.long()}
        if name == "image":
            pixels = tensors["pixels"].permute(0, 3, 1, 2)
            tensors["pixels"] = pixels.contiguous(memory_format=memory_format)
        inputs[name] = {key: tensor.to(device) for key, tensor in tensors.items()}
    truth = {name: torch.from_numpy(array) for name, array in case.truth().items()}
    numbers = {name: t if t.is_floating_point() else t.long() for name, t in truth.items()}
    return inputs, {name: tensor.to(device) for name, tensor in numbers.items()}


def use_all_cores() -> None:
    """As many threads as this process may use, which take denormal numbers for 0, as XLA does."""
    torch.set_flush_denormal(True)  # threads that begin later do so, too
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def _text(case: Case) -> nn.Module:
    if case.text_network == "bert":
        config = transformers.BertConfig(**case.text, attn_implementation="sdpa")
        network = transformers.BertModel(config, add_pooling_layer=False)
    else:
        config = transformers.DistilBertConfig(**case.text, attn_implementation="sdpa")
        network = transformers.DistilBertModel(config)
    if not case.lora:
        return network
    config = peft.LoraConfig(
        r=case.lora["rank"],
        lora_alpha=case.lora["alpha"],
        lora_dropout=case.lora["dropout"],
        target_modules=list(case.lora["layers"]),
    )
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that transformers has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return peft.get_peft_model(network, config)


def _image(case: Case) -> tuple[nn.Module, int]:
    """The network that reads the picture, and the width of its pooled features."""
    match case.image_network:
        case "mobilenet_v2":
            network = transformers.MobileNetV2Model(transformers.MobileNetV2Config(**case.image))
            return network, network.conv_1x1.convolution.out_channels
        case "efficientnet":
            config = transformers.EfficientNetConfig(**case.image)
            return transformers.EfficientNetModel(config), config.hidden_dim
        case _:
            stages = len(case.image["depths"])
            config = transformers.ConvNextConfig(**case.image, num_stages=stages)
            return transformers.ConvNextModel(config), config.hidden_sizes[-1]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _mask(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which tokens of a modality are real, bool [B, N]."""
    return arrays["mask"].bool() if "mask" in arrays else arrays["valid"].any(dim=-1)
