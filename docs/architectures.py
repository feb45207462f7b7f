"""Write docs/architectures.md: which way each causal architecture of transformers is run, as a trial found it.

`PYTHONPATH=. python docs/architectures.py` makes a tiny random model of each and tries it as a run tries the real one
(a few minutes). tests/test_architectures.py holds the page to it.
"""

import re
import tempfile
import warnings
from pathlib import Path

from tests.architectures import NAMES, try_architecture

PAGE = Path(__file__).with_name("architectures.md")
HEAD = """# Models that can be used

Any causal language model that the installed transformers ({version}) runs without code of its own can be the policy.
How it is run is not looked up here: before anything is computed, the model itself is tried, once for its content, the
versions of the libraries and the settings of `policy`. A few packed passes are compared with plain ones of the same
tokens, in answers, log-probabilities and the gradient of a training step.

- **packed**: many sequences in one pass, each shared beginning computed once, and training on packed pairs. Fast.
- **plain**: each sequence alone, by transformers' own generation and attention, and TRL's own step. The same results
  as transformers gives, several times slower. A line says so when a run begins.
- **uncached**: plain, and each token of an answer by a pass over all before it, since what the model says from its
  cache is not what it says without.

The table is of tiny random models, one for each model type, {packed} of {all} packed. A real model may differ where
its configuration does: Mistral 7B from v0.3 on has no window and runs packed. Models whose tokens see what is behind
them (BERT and its kin without `is_decoder`) are refused, as are encoder-decoders (T5, BART).

Mixtures of experts are trained without their router's load-balancing loss, which is of a batch and not of a pair, and
LoRA leaves the experts themselves as they are (peft adapts linear layers; transformers 5 keeps experts in one tensor).

| model type | path | why not packed |
|---|---|---|
"""


def main() -> None:
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: try_architecture(name, Path(folder) / name) for name in NAMES}
    packed = sum(path == "packed" for path, _ in found.values())
    head = HEAD.format(version=transformers.__version__, packed=packed, all=len(found))
    rows = [f"| {name} | {path} | {in_short(why)} |" for name, (path, why) in found.items()]
    PAGE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


def in_short(why: str) -> str:
    """Without the numbers and messages of one trial."""
    return re.sub(r" \((off by|[A-Z]\w+(Error|Exception)).*?\)(?=$|;)", "", why).replace("|", "/")


if __name__ == "__main__":
    main()
