"""Pretrained weights: one key table per network, one loader for all."""
