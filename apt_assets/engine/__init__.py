"""What is stale, and doing it: stages, fingerprints, plan and execution. No torch, no Dagster."""
