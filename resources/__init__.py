"""Not Dagster resources: what the stages work with. Models, assessors, retriever, trainer, benchmarks, store.

Nothing in here imports Dagster, and torch, transformers, trl, lancedb and lm_eval are imported
only inside the functions that need them.
"""

import os
import warnings

from resources.processor import set_mode

# Progress is reported by the stages, with rates, in the terminal and in Dagster alike; the bars of
# transformers, datasets, TRL and lm-eval would be mixed into that. An own setting is left alone.
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# transformers 5.23 warns of its own attribute and of an argument that TRL 1.16 passes.
warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
# Before torch is loaded, and multiplies: see there.
set_mode()
