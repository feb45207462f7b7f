"""What the stages work with: models, assessor, retriever, trainer, benchmarks, artifact store.

Nothing in here imports Dagster, and torch, transformers, trl, lancedb and lm_eval are imported
only inside the functions that need them.
"""
