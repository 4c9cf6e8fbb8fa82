"""Key table of EfficientNet, in the layouts of Hugging Face and, for B0, of timm."""

from jfusion.pretrained.rules import Rule, batch_norm, conv, dense

_P = r"(?:efficientnet\.)?"
_BLOCK = rf"{_P}encoder\.blocks\.(\d+)\."
_TO_BLOCK = r"encoder/blocks/\1/"
# Blocks of the stages of timm's B0.
_REPEATS = (1, 2, 2, 3, 3, 4, 1)

_EXPAND = ("expansion/expand_conv", "expansion/expand_bn")
_DEPTHWISE = ("depthwise_conv/depthwise_conv", "depthwise_conv/depthwise_norm")
_PROJECT = ("projection/project_conv", "projection/project_bn")


def _timm_blocks() -> list[Rule]:
    """timm counts the blocks of each stage, Hugging Face those of the network."""
    rules, count = [], 0
    for stage, repeats in enumerate(_REPEATS):
        for i in range(repeats):
            rules += _timm_block(rf"blocks\.{stage}\.{i}\.", f"encoder/blocks/{count}/", stage > 0)
            count += 1
    return rules


def _timm_block(block: str, target: str, expands: bool) -> list[Rule]:
    # Where nothing is expanded, `conv_pw` is not the expansion but the projection.
    layers = [("conv_dw", conv, _DEPTHWISE), ("conv_pw", dense, _PROJECT)]
    if expands:
        layers = [
            ("conv_pw", dense, _EXPAND),
            ("conv_dw", conv, _DEPTHWISE),
            ("conv_pwl", dense, _PROJECT),
        ]
    rules = []
    for number, (source, kind, (convolution, norm)) in enumerate(layers, start=1):
        rules += kind(block + source, target + convolution)
        rules += batch_norm(f"{block}bn{number}", target + norm)
    rules += dense(rf"{block}se\.conv_reduce", f"{target}squeeze_excite/reduce")
    rules += dense(rf"{block}se\.conv_expand", f"{target}squeeze_excite/expand")
    return rules


def _hugging_face_layer(convolution: str, norm: str, kind) -> list[Rule]:
    def source(path: str) -> str:
        return _BLOCK + path.replace("/", r"\.")

    return [
        *kind(source(convolution), _TO_BLOCK + convolution),
        *batch_norm(source(norm), _TO_BLOCK + norm),
    ]


HUGGING_FACE = [
    *conv(rf"{_P}embeddings\.convolution", "embeddings/convolution"),
    *batch_norm(rf"{_P}embeddings\.batchnorm", "embeddings/batchnorm"),
    *_hugging_face_layer(*_EXPAND, dense),
    *_hugging_face_layer(*_DEPTHWISE, conv),
    *dense(rf"{_BLOCK}squeeze_excite\.reduce", f"{_TO_BLOCK}squeeze_excite/reduce"),
    *dense(rf"{_BLOCK}squeeze_excite\.expand", f"{_TO_BLOCK}squeeze_excite/expand"),
    *_hugging_face_layer(*_PROJECT, dense),
    *dense(rf"{_P}encoder\.top_conv", "encoder/top_conv"),
    *batch_norm(rf"{_P}encoder\.top_bn", "encoder/top_bn"),
]

TIMM = [
    *conv(r"conv_stem", "embeddings/convolution"),
    *batch_norm(r"bn1", "embeddings/batchnorm"),
    *_timm_blocks(),
    *dense(r"conv_head", "encoder/top_conv"),
    *batch_norm(r"bn2", "encoder/top_bn"),
]

EFFICIENTNET = [*HUGGING_FACE, *TIMM, Rule(r"classifier\.(weight|bias)", None)]
