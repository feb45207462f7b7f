"""Trackers: what an iteration came to, read from the store and sent to MLflow, W&B, Trackio or TensorBoard."""
