"""Key tables of DistilBERT and BERT.

Keys begin with the network's name where it was saved with a head on it, and do not otherwise.
"""

from jfusion.pretrained.rules import Rule, dense, norm

_D = r"(?:distilbert\.)?"
_D_LAYER = rf"{_D}transformer\.layer\.(\d+)\."
DISTILBERT = [
    Rule(
        rf"{_D}embeddings\.(word|position)_embeddings\.weight",
        r"embeddings/\1_embeddings/embedding",
    ),
    *norm(rf"{_D}embeddings\.LayerNorm", "embeddings/LayerNorm"),
    *dense(rf"{_D_LAYER}attention\.(q|k|v|out)_lin", r"transformer/layer/\1/attention/\2_lin"),
    *norm(rf"{_D_LAYER}(sa|output)_layer_norm", r"transformer/layer/\1/\2_layer_norm"),
    *dense(rf"{_D_LAYER}ffn\.lin([12])", r"transformer/layer/\1/ffn/lin\2"),
    # 0, 1, 2 ...: saved by old versions.
    Rule(rf"{_D}embeddings\.position_ids", None),
    # The heads of pretraining, and those of the reference's classifiers.
    Rule(r"vocab_(transform|layer_norm|projector)\..*", None),
    Rule(r"(pre_classifier|classifier|qa_outputs)\..*", None),
]

_B = r"(?:bert\.)?"
_B_LAYER = rf"{_B}encoder\.layer\.(\d+)\."
BERT = [
    Rule(
        rf"{_B}embeddings\.(word|position|token_type)_embeddings\.weight",
        r"embeddings/\1_embeddings/embedding",
    ),
    *norm(rf"{_B}embeddings\.LayerNorm", "embeddings/LayerNorm"),
    *dense(rf"{_B_LAYER}attention\.self\.(query|key|value)", r"encoder/layer/\1/attention/self/\2"),
    *dense(rf"{_B_LAYER}attention\.output\.dense", r"encoder/layer/\1/attention/output/dense"),
    *norm(
        rf"{_B_LAYER}attention\.output\.LayerNorm", r"encoder/layer/\1/attention/output/LayerNorm"
    ),
    *dense(rf"{_B_LAYER}(intermediate|output)\.dense", r"encoder/layer/\1/\2/dense"),
    *norm(rf"{_B_LAYER}output\.LayerNorm", r"encoder/layer/\1/output/LayerNorm"),
    # 0, 1, 2 ...: saved by old versions.
    Rule(rf"{_B}embeddings\.position_ids", None),
    # jfusion takes the first token itself, so the pooler is not part of its network.
    Rule(rf"{_B}pooler\.dense\.(weight|bias)", None),
    # The heads of pretraining, and those of the reference's classifiers.
    Rule(r"cls\.(predictions|seq_relationship)\..*", None),
    Rule(r"(classifier|qa_outputs)\..*", None),
]
