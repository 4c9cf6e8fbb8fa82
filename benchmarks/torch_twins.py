"""The same training step in PyTorch, with transformers' networks from their config, and PEFT.

The twin gets what PyTorch offers: channels_last, fused AdamW, automatic mixed precision, and
`torch.compile` where a compiler works. Each form that fits the case is tried, the fastest is used.
"""

import os
import warnings
from collections.abc import Callable, Iterator

import peft
import torch
import transformers
from absl import logging
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import CLIP, DECAY, HEAD_DROPOUT, LABELS, MEAN, RATE, STD, Case

Step = Callable[[], torch.Tensor]


class Twin(nn.Module):
    """The encoders of a case, their features joined, a hidden layer, and a logit per label."""

    def __init__(self, case: Case):
        super().__init__()
        width = 0
        if case.text:
            self.text = _text(case)
            width += self.text.config.hidden_size
        if case.image:
            config = transformers.ConvNextConfig(**case.image, num_stages=len(case.image["depths"]))
            self.image = transformers.ConvNextModel(config)
            width += config.hidden_sizes[-1]
            self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(1, 3, 1, 1))
            self.register_buffer("std", 255 * torch.tensor(STD).reshape(1, 3, 1, 1))
        self.hidden = nn.Identity()
        if case.hidden:
            layer = nn.Linear(width, case.hidden)
            self.hidden = nn.Sequential(layer, nn.ReLU(), nn.Dropout(HEAD_DROPOUT))
        self.out = nn.Linear(case.hidden or width, LABELS)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, LABELS] of a batch with what the case has of `ids`, `mask` and `pixels`."""
        pooled = []
        if "ids" in batch:
            tokens = self.text(input_ids=batch["ids"], attention_mask=batch.get("mask"))
            pooled.append(tokens.last_hidden_state[:, 0])
        if "pixels" in batch:
            pixels = (batch["pixels"].float() - self.mean) / self.std
            pooled.append(self.image(pixel_values=pixels).pooler_output)
        return self.out(self.hidden(torch.cat(pooled, dim=1)))


def forms(case: Case, compiled: bool = True) -> Iterator[tuple[str, Step]]:
    """The forms of the twin that may be fastest, by name, each with new weights.

    Args:
        case: What to train.
        compiled: Also with `torch.compile`. A form that does not compile here is left out, with a
            warning.
    """
    memory_formats = {"": torch.contiguous_format}
    if case.image:
        memory_formats["channels_last"] = torch.channels_last
    for name, memory_format in memory_formats.items():
        yield name or "eager", train_step(case, memory_format, compiled=False)
        if compiled:
            try:
                step = train_step(case, memory_format, compiled=True)
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
    batch = _batch(case, device, memory_format)
    trained = [p for p in twin.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    loss_fn = nn.BCEWithLogitsLoss()

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            logits = twin(batch)
        return loss_fn(logits.float(), batch["labels"])

    if compiled:
        loss_of = torch.compile(loss_of)

    def one_step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        return loss.detach()

    return one_step


def finish(loss: torch.Tensor) -> float:
    """Waits for a step, as reading its loss does."""
    return loss.item()


def flops(case: Case) -> int:
    """Floating point operations of a step's products and convolutions.

    Each product has two gradients of its own size, which makes three forward passes, but a frozen
    layer has none of its weights. (PyTorch's count of the backward pass takes the kernel gradient
    of a depthwise convolution for that of a full one.)
    """
    with torch.device("meta"):
        twin = Twin(case).eval()
    batch = _batch(case, "meta", torch.contiguous_format)
    batch.pop("mask", None)  # transformers looks into it, and here it has no values
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(batch)
    frozen = sum(
        layer.weight.numel()
        for layer in twin.modules()
        if isinstance(layer, nn.Linear) and not layer.weight.requires_grad
    )
    return 3 * counter.get_total_flops() - 2 * case.batch * case.tokens * frozen


def use_all_cores() -> None:
    """As many threads as this process may use; XLA does the same."""
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


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _batch(case: Case, device: str, memory_format: torch.memory_format) -> dict[str, torch.Tensor]:
    arrays = {name: torch.from_numpy(array) for name, array in case.arrays().items()}
    batch = {"labels": arrays["labels"]}
    if case.text:
        batch["ids"] = arrays["ids"].long()
        batch["mask"] = (torch.arange(case.tokens) < arrays["length"][:, None]).long()
    if case.image:
        pixels = arrays["pixels"].permute(0, 3, 1, 2)
        batch["pixels"] = pixels.contiguous(memory_format=memory_format)
    return {name: tensor.to(device) for name, tensor in batch.items()}
