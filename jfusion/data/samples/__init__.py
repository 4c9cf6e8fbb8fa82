"""Generated data sets with planted signals: what the configs train on by default."""
