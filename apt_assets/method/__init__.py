"""The method, step by step, as plain functions over tables: no Dagster, no store, no model."""
