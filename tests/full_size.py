"""Networks of full size with random weights, as they are published, and commands that use them."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def jfusion(folder, command, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"jfusion.{command}", *arguments],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "JFUSION_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_distilbert(folder):
    """`distilbert-base-uncased` as it is published, but for its numbers and most of its words."""
    torch.manual_seed(0)
    transformers.DistilBertForMaskedLM(transformers.DistilBertConfig()).save_pretrained(folder)
    _write_words(folder, "DistilBertTokenizer")


def write_bert(folder):
    """`bert-base-uncased` as it is published, but for its numbers and most of its words."""
    torch.manual_seed(0)
    transformers.BertForPreTraining(transformers.BertConfig()).save_pretrained(folder)
    _write_words(folder, "BertTokenizer")


def write_convnext(folder):
    """`facebook/convnext-tiny-224` as it is published, but for its numbers."""
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(num_labels=1000)
    transformers.ConvNextForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_pct": 0.875,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "ConvNextFeatureExtractor",
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
                "resample": 3,
                "size": 224,
            }
        )
    )


def write_mobilenet_v2(folder):
    """`google/mobilenet_v2_1.0_224` as it is published, but for its numbers."""
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(num_labels=1001, classifier_dropout_prob=0.2)
    _write_trained(folder, transformers.MobileNetV2ForImageClassification(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "resample": 2,
                "rescale_factor": 1 / 255,
                "size": {"shortest_edge": 256},
            }
        )
    )


def _write_trained(folder, network):
    """Saves a network with statistics that are not those of a fresh one."""
    for name, leaf in network.named_buffers():
        if name.endswith("running_var"):
            leaf.uniform_(0.5, 1.5)
        if name.endswith("running_mean"):
            leaf.normal_(0, 0.1)
    network.save_pretrained(folder)


def _write_words(folder, tokenizer):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789."
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = [*special, *letters, *(f"##{x}" for x in letters), "a", "story", "of", "number"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer, "do_lower_case": True})
    )
