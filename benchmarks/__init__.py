"""Measurements of jfusion against PyTorch and against the limits of the device."""
