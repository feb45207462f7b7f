"""Dagster: assets, checks, sensors, and its memory of the store."""
