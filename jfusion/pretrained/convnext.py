"""Key table of ConvNeXt, in the layouts of Hugging Face and of timm."""

from jfusion.pretrained.rules import Rule, conv, dense, norm

_P = r"(?:convnext\.)?"
_LAYER = rf"{_P}encoder\.stages\.(\d+)\.layers\.(\d+)\."
_DOWN = rf"{_P}encoder\.stages\.(\d+)\.downsampling_layer\."
_TIMM_LAYER = r"stages\.(\d+)\.blocks\.(\d+)\."
_TIMM_DOWN = r"stages\.(\d+)\.downsample\."

_TO_LAYER = r"encoder/stages/\1/layers/\2/"
_TO_DOWN = r"encoder/stages/\1/downsampling_layer/"

HUGGING_FACE = [
    *conv(rf"{_P}embeddings\.patch_embeddings", "embeddings/patch_embeddings"),
    *norm(rf"{_P}embeddings\.layernorm", "embeddings/layernorm"),
    *norm(rf"{_DOWN}0", rf"{_TO_DOWN}0"),
    *conv(rf"{_DOWN}1", rf"{_TO_DOWN}1"),
    *conv(rf"{_LAYER}dwconv", rf"{_TO_LAYER}dwconv"),
    *norm(rf"{_LAYER}layernorm", rf"{_TO_LAYER}layernorm"),
    *dense(rf"{_LAYER}pwconv([12])", rf"{_TO_LAYER}pwconv\3"),
    Rule(rf"{_LAYER}layer_scale_parameter", rf"{_TO_LAYER}layer_scale_parameter"),
    *norm(rf"{_P}layernorm", "layernorm"),
    Rule(r"classifier\.(weight|bias)", None),
]

TIMM = [
    *conv(r"stem\.0", "embeddings/patch_embeddings"),
    *norm(r"stem\.1", "embeddings/layernorm"),
    *norm(rf"{_TIMM_DOWN}0", rf"{_TO_DOWN}0"),
    *conv(rf"{_TIMM_DOWN}1", rf"{_TO_DOWN}1"),
    *conv(rf"{_TIMM_LAYER}conv_dw", rf"{_TO_LAYER}dwconv"),
    *norm(rf"{_TIMM_LAYER}norm", rf"{_TO_LAYER}layernorm"),
    *dense(rf"{_TIMM_LAYER}mlp\.fc([12])", rf"{_TO_LAYER}pwconv\3"),
    Rule(rf"{_TIMM_LAYER}gamma", rf"{_TO_LAYER}layer_scale_parameter"),
    *norm(r"head\.norm", "layernorm"),
    Rule(r"head\.fc\.(weight|bias)", None),
]

CONVNEXT = HUGGING_FACE + TIMM
