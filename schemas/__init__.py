"""The project's tables: their schemas."""
