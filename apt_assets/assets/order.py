"""Importing this declares all stages of the loop, in the order in which data flows."""

from apt_assets.assets import (  # noqa: F401, I001 - the order is the order of the loop
    sources,
    heldout_rows,
    base_scores,
    judge_calibration,
    anchor_texts,
    domain_dataset,
    screened_texts,
    retrieval_index,
    policy,
    eval_predictions,
    bad_cases,
    neighbors,
    similar_predictions,
    doubtful_golds,
    preference_pairs,
    adapter_checkpoint,
    benchmark_scores,
    gate,
    promoted_adapter,
)
