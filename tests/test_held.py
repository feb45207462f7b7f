"""One load of a base model: adapters swapped on it answer as if each had been loaded afresh, to the last bit."""

import json
import os
import shutil
import weakref

import pytest
import torch

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from resources.model import held, policy
from resources.model.held import BaseModel, let_go, open_held, take_base
from resources.model.lm_eval_tasks import load_tasks, score_items
from resources.model.policy import end_tokens, load_policy
from resources.store.rows import collect
from resources.training.trainer import only_new_garbage
from tests import tiny


@pytest.fixture
def reads(monkeypatch):
    """The base models that are read from now on."""
    let_go()
    found = []

    def counted(folder, *rest):
        found.append(folder)
        return policy.load_base(folder, *rest)

    monkeypatch.setattr(held, "load_base", counted)
    yield found
    let_go()


def logits(opened):
    with torch.no_grad():
        return opened.model(torch.arange(2, 12)[None]).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_that_are_swapped_on_one_base_model_are_those_that_are_loaded_afresh(
    dtype, tiny_folder, tmp_path, reads
):
    folder = tiny_folder / "policy"
    adapters = {name: tiny.make_adapter(tmp_path / name, folder, seed) for seed, name in enumerate(("one", "two"))}
    base = BaseModel(folder, dtype, path="plain")
    for name in (None, "one", "two", "one", None, "two"):
        adapter = adapters.get(name)
        fresh = load_policy(folder, adapter, dtype=dtype, path="plain")
        assert torch.equal(logits(open_held("policy", base, None, adapter, name)), logits(fresh))
    assert len(reads) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_takes_the_base_model_without_the_adapter_that_was_on_it(dtype, tiny_folder, tmp_path, reads):
    folder, base = tiny_folder / "policy", BaseModel(tiny_folder / "policy", dtype)
    open_held("policy", base, None, tiny.make_adapter(tmp_path / "one", folder), "one")
    taken, _ = take_base(base)
    fresh, _ = policy.load_base(folder, dtype, "none", "cpu")
    assert {name: w.tolist() for name, w in taken.state_dict().items()} == {
        name: w.tolist() for name, w in fresh.state_dict().items()
    }
    open_held("policy", base, None)
    assert len(reads) == 2  # what training makes of it is not held


def test_base_model_that_was_trained_is_out_of_memory_before_it_is_read_anew(tiny_folder, monkeypatch):
    base = BaseModel(tiny_folder / "policy", "float32")
    taken, _ = take_base(base)
    taken.itself, trained = taken, weakref.ref(taken)
    del taken
    assert trained() is not None
    alive = []

    def looked_at(*asked):
        alive.append(trained())
        return policy.load_base(*asked)

    monkeypatch.setattr(held, "load_base", looked_at)
    open_held("policy", base, None)
    assert alive == [None]


def test_what_is_left_of_an_encoder_is_gone_before_training(tiny_folder):
    class Left:
        pass

    left = Left()
    left.itself, gone = left, weakref.ref(left)
    del left
    with only_new_garbage():
        assert gone() is None


def test_an_adapter_that_does_not_fit_leaves_no_half_of_it_behind(tiny_folder, tmp_path, reads):
    folder, base = tiny_folder / "policy", BaseModel(tiny_folder / "policy", "float32", path="plain")
    good = tiny.make_adapter(tmp_path / "good", folder)
    open_held("policy", base, None, good, "good")
    with pytest.raises(ValueError, match="no adapter"):
        open_held("policy", base, None, tmp_path / "no adapter", "bad")
    fresh = load_policy(folder, dtype="float32", path="plain")
    assert torch.equal(logits(open_held("policy", base, None)), logits(fresh))


def test_a_model_that_changed_in_its_folder_is_read_again(tiny_folder, tmp_path, reads):
    folder = tiny.make_policy(tmp_path / "policy", seed=1)
    before = logits(open_held("policy", BaseModel(folder, "float32", path="plain"), None))
    tiny.make_policy(folder, seed=2)
    assert not torch.equal(logits(open_held("policy", BaseModel(folder, "float32", path="plain"), None)), before)


def test_two_iterations_read_the_base_model_once_before_each_training_and_once_after_the_last(
    tmp_path, tiny_folder, reads
):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    project = tiny.open_project(tmp_path, tiny_folder, loop={"max_iterations": 2})
    project.executions.find_out(["execution"])
    reads.clear()
    run_loop(project, 2, Display())
    assert len(reads) == 3


def test_another_model_of_the_same_size_and_time_is_read_again(tiny_folder, tmp_path, reads):
    folder, other = (tiny.make_policy(tmp_path / name, seed) for seed, name in enumerate(("policy", "other"), 1))
    for weights in (folder / "model.safetensors", other / "model.safetensors"):
        os.utime(weights, (0, 0))
    base = BaseModel(folder, "float32", path="plain")
    before = logits(open_held("policy", base, None))
    shutil.copy2(other / "model.safetensors", folder / "new")
    (folder / "new").replace(folder / "model.safetensors")
    assert not torch.equal(logits(open_held("policy", base, None)), before)


@pytest.fixture
def windowed(tmp_path):
    """A model that runs on the plain path, with more end tokens than its tokenizer names and a repetition penalty."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = tiny.make_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, sliding_window=64, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.4,
    )  # fmt: skip
    model = MistralForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, "aeiou0123")]
    model.generation_config.repetition_penalty = 5.0
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", None])
def test_answers_of_an_adapter_on_the_plain_path_leave_end_tokens_and_answers_of_others_as_they_were(
    windowed, tmp_path, reads, task_type
):
    prompts = ["What is it?", "And why?", "7 and 5"]
    adapters = {}
    for seed, name in enumerate(("one", "two")):
        adapters[name] = tiny.make_adapter(tmp_path / name, windowed, seed)
        config = tmp_path / name / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "task_type": task_type}))

    def said(name):
        policy = open_held("policy", BaseModel(windowed, "bfloat16", path="plain"), None, adapters.get(name), name)
        return end_tokens(policy.model, policy.tokenizer), tiny.answers(
            policy, prompts, max_new_tokens=20, batch_tokens=256
        )

    alone = {}
    for name in (None, "one", "two"):
        let_go()
        alone[name] = said(name)
    assert len(alone[None][0]) == 10
    let_go()
    for name in ("one", "two", None, "one"):
        assert said(name) == alone[name]


def test_head_that_a_checkpoint_has_apart_stays_apart_whatever_its_configuration_says(tmp_path, reads):
    folder = tiny.make_policy(tmp_path / "policy", spread=0.3)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": True}))
    tiny.make_task(tmp_path / "tasks")
    (task,) = load_tasks(tmp_path / "tasks", {"colours": None}, tmp_path)
    base = BaseModel(folder, "float32", path="plain")
    before = logits(open_held("policy", base, None))
    collect(2, score_items(open_held("policy", base, None), task, range(2), batch_tokens=256))
    assert torch.equal(logits(open_held("policy", base, None)), before)
