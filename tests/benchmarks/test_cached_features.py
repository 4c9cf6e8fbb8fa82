import rich.console

from benchmarks import cached_features


def test_both_kinds_of_epochs_are_timed(tmp_path):
    config = cached_features.configure(
        "product_image",
        network="mobilenet_v2",
        sizes=dict(out_channels=(8,), num_block_repeats=(1,), strides=(1,), hidden_dim=16),
        rows=40,
        size=16,
        batch=8,
        flip=0.5,
        dtype="float32",
        epochs=1,
        cache=str(tmp_path),
    )
    row = cached_features.measure(config)
    assert row["rows"]["train"] > row["rows"]["val"] > 0
    assert min(row["uncached"], row["computing"], row["cached"]) > 0
    assert row["ratio"] == row["uncached"] / row["cached"]
    assert len(list((tmp_path / "features").iterdir())) == 2
    console = rich.console.Console(width=120)
    with console.capture() as shown:
        console.print(cached_features.table(row))
    assert "mobilenet_v2 frozen, 16 pixels" in shown.get()
    assert "times faster" in shown.get()


def test_both_networks_can_be_cached(tmp_path):
    for network in cached_features.NETWORKS:
        config = cached_features.configure(
            "product_fusion",
            network=network,
            rows=40,
            size=32,
            batch=8,
            flip=0.0,
            dtype="bfloat16",
            epochs=2,
            cache=str(tmp_path),
        )
        encoder = config.inputs["image"].encoder
        assert (encoder.network, encoder.sizes) == (network, {})
        assert config.train.phases[0].epochs == 3
