"""Small checkpoints of random numbers, written without PyTorch."""

import json

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "distilbert",
    "vocab_size": 20,
    "dim": 8,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 12,
    "max_position_embeddings": 6,
}


def distilbert(prefix="distilbert."):
    """Tensors of a network of the size of `CONFIG`, as the reference names and shapes them."""
    shapes = {"embeddings.word_embeddings.weight": (20, 8)}
    shapes["embeddings.position_embeddings.weight"] = (6, 8)
    shapes |= {f"embeddings.LayerNorm.{name}": (8,) for name in ("weight", "bias")}
    for i in range(2):
        layer = f"transformer.layer.{i}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes[f"{layer}.attention.{name}.weight"] = (8, 8)
            shapes[f"{layer}.attention.{name}.bias"] = (8,)
        for name in ("sa_layer_norm", "output_layer_norm"):
            shapes |= {f"{layer}.{name}.weight": (8,), f"{layer}.{name}.bias": (8,)}
        shapes |= {f"{layer}.ffn.lin1.weight": (12, 8), f"{layer}.ffn.lin1.bias": (12,)}
        shapes |= {f"{layer}.ffn.lin2.weight": (8, 12), f"{layer}.ffn.lin2.bias": (8,)}
    rng = np.random.default_rng(0)
    return {
        prefix + key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()
    }


def write(folder, tensors, config=CONFIG):
    """Saves a checkpoint in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(folder, tensors):
    """Saves a checkpoint in two files with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    keys, index = sorted(tensors), {}
    for i, part in enumerate((keys[::2], keys[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder
