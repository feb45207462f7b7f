"""What lies outside the store, by content: models, code, tasks."""
