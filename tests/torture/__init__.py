"""What the store and the loop survive, with figures: `python -m tests.torture` (docs/reliability.md)."""
