"""From a table to batches."""
