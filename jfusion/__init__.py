"""Fine-tune pretrained text, image and time-series encoders together, in JAX, on one's own table."""
