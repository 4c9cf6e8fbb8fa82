"""TFDS builders for the public data sets."""
