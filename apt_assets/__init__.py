"""apt-assets: the APT loop as a Dagster asset graph in which only stale stages recompute."""
