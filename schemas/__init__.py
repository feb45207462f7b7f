"""The project's tables: their schemas, and where their columns come from."""
