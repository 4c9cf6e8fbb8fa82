"""Key table of MobileNetV2, in the layouts of Hugging Face and of timm."""

from jfusion.pretrained.rules import Rule, batch_norm, conv, dense

_P = r"(?:mobilenet_v2\.)?"
_LAYER = rf"{_P}layer\.(\d+)\."
# Blocks of the stages of timm's network after the first, which is our stem.
_REPEATS = (2, 3, 4, 3, 3, 1)


def _conv_layer(source: str, target: str, kind) -> list[Rule]:
    return [
        *kind(rf"{source}\.convolution", f"{target}/convolution"),
        *batch_norm(rf"{source}\.normalization", f"{target}/normalization"),
    ]


def _timm(source: str, norm: str, target: str, kind) -> list[Rule]:
    return [
        *kind(source, f"{target}/convolution"),
        *batch_norm(norm, f"{target}/normalization"),
    ]


def _timm_blocks() -> list[Rule]:
    """timm counts the blocks of each stage, Hugging Face those of the network."""
    rules, layer = [], 0
    for stage, repeats in enumerate(_REPEATS, start=1):
        for i in range(repeats):
            block, target = rf"blocks\.{stage}\.{i}\.", f"layer/{layer}/"
            rules += _timm(f"{block}conv_pw", f"{block}bn1", f"{target}expand_1x1", dense)
            rules += _timm(f"{block}conv_dw", f"{block}bn2", f"{target}conv_3x3", conv)
            rules += _timm(f"{block}conv_pwl", f"{block}bn3", f"{target}reduce_1x1", dense)
            layer += 1
    return rules


HUGGING_FACE = [
    *_conv_layer(rf"{_P}conv_stem\.first_conv", "conv_stem/first_conv", conv),
    *_conv_layer(rf"{_P}conv_stem\.conv_3x3", "conv_stem/conv_3x3", conv),
    *_conv_layer(rf"{_P}conv_stem\.reduce_1x1", "conv_stem/reduce_1x1", dense),
    *_conv_layer(rf"{_LAYER}expand_1x1", r"layer/\1/expand_1x1", dense),
    *_conv_layer(rf"{_LAYER}conv_3x3", r"layer/\1/conv_3x3", conv),
    *_conv_layer(rf"{_LAYER}reduce_1x1", r"layer/\1/reduce_1x1", dense),
    *_conv_layer(rf"{_P}conv_1x1", "conv_1x1", dense),
]

TIMM = [
    *_timm(r"conv_stem", r"bn1", "conv_stem/first_conv", conv),
    *_timm(r"blocks\.0\.0\.conv_dw", r"blocks\.0\.0\.bn1", "conv_stem/conv_3x3", conv),
    *_timm(r"blocks\.0\.0\.conv_pw", r"blocks\.0\.0\.bn2", "conv_stem/reduce_1x1", dense),
    *_timm_blocks(),
    *_timm(r"conv_head", r"bn2", "conv_1x1", dense),
]

MOBILENET_V2 = [*HUGGING_FACE, *TIMM, Rule(r"classifier\.(weight|bias)", None)]
