"""Any causal model of transformers answers as transformers does: packed where that holds, plainly elsewhere."""

import re
from pathlib import Path

import pytest

from resources.model.agreement import NotCausal
from resources.model.policy import encode, load_policy
from tests import tiny
from tests.architectures import NAMES, make_architecture, try_architecture

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
PROMPTS = [f"{word} question {i}?" * (1 + i % 3) for i, word in enumerate(["sky", "grass", "blood", "sea"] * 2)]
NEW = 6
# Of every kind: attention alone, windows, soft caps, sinks, ALiBi, states, convolutions, experts, learned positions.
FEW = ["llama", "gpt2", "mistral", "gemma2", "gpt_oss", "bloom", "mamba", "lfm2", "mixtral", "falcon"]

# Every second of the rest, for the time that it takes; `python docs/architectures.py` tries them all.
OTHERS = [name for name in NAMES if name not in (*FEW, "kimi_linear")][::2]  # that one takes two minutes


def of_transformers(folder, policy):
    """Its own greedy answers, each prompt alone and without a cache."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in PROMPTS:
        ids, said = encode(policy, prompt), []
        while len(said) < NEW and (not said or said[-1] != policy.tokenizer.eos_token_id):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*ids, *said]]), use_cache=False).logits
            said.append(int(logits[0, -1].argmax()))
        answers.append(policy.tokenizer.decode(said, skip_special_tokens=True).strip())
    return answers


def paths_on_the_page():
    return dict(re.findall(r"^\| (\S+) \| (packed|plain|uncached) \|", PAGE.read_text(encoding="utf-8"), re.M))


def check(name, folder):
    path, _ = try_architecture(name, folder)
    assert path == paths_on_the_page()[name]
    policy = load_policy(folder, dtype="float32", path=path)
    answers = tiny.answers(policy, PROMPTS, max_new_tokens=NEW, batch_tokens=256)
    assert answers == of_transformers(folder, policy)
    assert path != "packed" or len(set(answers)) > 1, "a model that says the same to everything tells nothing"


@pytest.mark.parametrize("name", FEW)
def test_a_model_answers_as_transformers_does_on_the_path_that_the_page_names(name, tmp_path):
    check(name, tmp_path / name)


@pytest.mark.slow("cases")
@pytest.mark.parametrize("name", OTHERS)
def test_each_architecture_answers_as_transformers_does_on_the_path_that_the_page_names(name, tmp_path):
    check(name, tmp_path / name)


def test_the_page_names_every_architecture_that_is_tried():
    assert paths_on_the_page().keys() == set(NAMES)
    assert len(NAMES) >= 100
    assert len({*FEW, *OTHERS}) >= 60


def test_a_model_whose_tokens_see_what_is_behind_them_is_refused(tmp_path):
    with pytest.raises(NotCausal):
        try_architecture("bert", tmp_path / "bert")


def test_a_window_shorter_than_the_context_is_run_plainly_and_one_as_long_is_packed(tmp_path):
    from transformers import AutoConfig

    from resources.model.agreement import special

    for window, path in ((64, "plain"), (256, "packed")):
        make_architecture("qwen2", tmp_path / path, use_sliding_window=True, sliding_window=window)
        config = AutoConfig.from_pretrained(tmp_path / path)
        assert (special(config) is None) == (path == "packed")


@pytest.mark.parametrize(
    "kind",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 128,
         "short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
    ],
)  # fmt: skip
def test_rotary_positions_that_go_by_the_longest_sequence_do_not_remember_another_question(kind, tmp_path):
    settings = {"max_position_embeddings": 128, "initializer_range": 0.4}
    make_architecture("llama", tmp_path, **settings, rope_parameters=kind | {"rope_theta": 10000.0})
    policy = load_policy(tmp_path, dtype="float32", path="plain")
    asked = [f"question {number} " + "x" * length for number, length in enumerate((130, 140, 20, 60))]

    def answers(*prompts):
        return tiny.answers(policy, prompts, max_new_tokens=8, batch_tokens=512)

    alone = answers(*asked)
    assert answers("y" * 230, *asked)[1:] == alone
