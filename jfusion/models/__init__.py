"""The networks: encoders, fusion and heads."""
