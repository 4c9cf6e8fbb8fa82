"""Fine-tune pretrained text, image and time-series encoders together, in JAX, on a table."""
