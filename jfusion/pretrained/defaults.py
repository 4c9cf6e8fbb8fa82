"""Constructor numbers by network.

Networks with published weights are named by their `model_type` of Hugging Face, with the defaults
of its config classes.
"""

DEFAULTS = {
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
        "dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "bert": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
    "convnext": {
        "num_channels": 3,
        "patch_size": 4,
        "hidden_sizes": (96, 192, 384, 768),
        "depths": (3, 3, 9, 3),
        "drop_path_rate": 0.0,
        "layer_scale_init_value": 1e-6,
        "layer_norm_eps": 1e-12,
    },
    "mobilenet_v2": {
        "num_channels": 3,
        "depth_multiplier": 1.0,
        "depth_divisible_by": 8,
        "min_depth": 8,
        "expand_ratio": 6.0,
        "out_channels": (16, 24, 32, 64, 96, 160, 320),
        "num_block_repeats": (1, 2, 3, 4, 3, 3, 1),
        "strides": (1, 2, 2, 2, 1, 2, 1),
        "hidden_dim": 1280,
        "padding": "same",
        "layer_norm_eps": 1e-3,
        "batch_norm_momentum": 0.003,
    },
    # B0, where Hugging Face's config class has the numbers of B7.
    "efficientnet": {
        "num_channels": 3,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "depth_divisor": 8,
        "kernel_sizes": (3, 3, 5, 3, 5, 5, 3),
        "in_channels": (32, 16, 24, 40, 80, 112, 192),
        "out_channels": (16, 24, 40, 80, 112, 192, 320),
        "depthwise_padding": (),
        "strides": (1, 2, 2, 2, 1, 2, 1),
        "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
        "expand_ratios": (1, 6, 6, 6, 6, 6, 6),
        "squeeze_expansion_ratio": 0.25,
        "hidden_dim": 1280,
        "padding": "same",
        "batch_norm_eps": 1e-3,
        "batch_norm_momentum": 0.01,
        "drop_connect_rate": 0.2,
    },
    # Without published weights.
    "text_cnn": {
        "vocab_size": 15001,
        "width": 128,
        "kernel_sizes": (2, 3, 4),
        "filters": 64,
        "hidden": 128,
        "dropout": 0.3,
    },
    # The readers of sequences have no published weights; their `features` come from the data.
    "mean_pool": {"features": 0},
    "temporal_cnn": {
        "features": 0,
        "width": 512,
        "kernel_size": 3,
        "dilations": (1, 2, 4),
        "dropout": 0.15,
    },
    "frame_transformer": {
        "features": 0,
        "width": 256,
        "layers": 2,
        "heads": 4,
        "hidden": 512,
        "dropout": 0.1,
        "max_steps": 1000,
    },
    # The reader of columns has none either; `numbers` and `categories` come from the data.
    "tabular": {"numbers": 0, "categories": (0,), "width": 64, "layers": 2, "dropout": 0.1},
}
