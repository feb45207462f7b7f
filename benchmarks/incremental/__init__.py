"""How much work three tools do, and what they wrongly reuse, when something changes.

`python -m benchmarks.incremental.race` runs the same loop on the same model and data with
apt-assets, with a plain script (`plain.py`) and with DVC (`pipeline.py`), changes one thing after
another (`scenarios.py`), and counts units of work by content (`work.py`).
"""
