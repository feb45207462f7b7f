"""Models of the user's own: architectures, tokenizers without a template, LoRA targets, what a machine lacks."""

import os
import shutil

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from apt_assets.engine.display import Display
from apt_assets.engine.plan import stages_of
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.experiment import REPOSITORY, UsageError
from resources.model.capabilities import lacking
from resources.model.policy import encode, load_policy
from resources.training.trainer import make_trainer, train_adapter
from tests import tiny
from tests.test_trainer import RECIPE, pairs

pytestmark = pytest.mark.slow("loop")

# What their config.json says, sizes apart.
LLAMA_2 = {
    "model_type": "llama", "hidden_act": "silu", "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pretraining_tp": 1,
}  # fmt: skip
MISTRAL_3 = {
    "model_type": "mistral", "hidden_act": "silu", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GEMMA_2 = {
    "model_type": "gemma2", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1,
    "eos_token_id": 2, "attn_logit_softcapping": 50.0, "sliding_window": 4096, "max_position_embeddings": 4096,
}  # fmt: skip
# In the form of Mistral's own for its instruct models: no role of a system, special words, an end token.
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)


def make_model(folder, architecture, template=None, shard_size="50GB"):
    """A tiny model of that architecture with random weights, in files of at most `shard_size`, and a tokenizer of
    Llama's kind: it writes <s> before a text, has no pad token, and knows characters it has no token for by their
    bytes."""
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaTokenizer

    letters = [chr(n) for n in range(33, 127)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *letters]
    tokenizer = LlamaTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[], add_bos_token=True)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": len(tokens)}
    named = {**architecture, **sizes}
    config = AutoConfig.for_model(named.pop("model_type"), **named, initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size=shard_size)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("llama") / "model", LLAMA_2)


@pytest.mark.parametrize(
    ("file", "architecture", "template"),
    [
        ("llama-2-7b", LLAMA_2, None),
        ("mistral-7b-v0.3", MISTRAL_3, None),
        ("mistral-7b-v0.3", MISTRAL_3, INSTRUCT),
    ],
    ids=["llama-2", "mistral-v0.3", "mistral-v0.3-instruct"],
)
def test_ready_experiment_runs_the_whole_loop_on_a_tiny_model_of_its_architecture_in_several_files(
    file, architecture, template, make_experiment, tiny_folder, tmp_path
):
    model = make_model(tmp_path / "model", architecture, template, shard_size="60KB")
    assert len(list(model.glob("model-*-of-*.safetensors"))) > 1, "as models of 7B come"
    content = yaml.safe_load((REPOSITORY / "experiments" / f"{file}.yaml").read_text())
    content["policy"] |= {"model": str(model), "device": "cpu", "dtype": "float32", "max_new_tokens": 4}
    content["data"] = {"near_duplicate_words": None}  # the made-up questions differ in their number only
    content["mining"]["questions"] = 12
    content["retrieval"] = {"encoder": str(tiny_folder / "encoder")}
    content["benchmarks"] = {"folder": str(tiny_folder / "tasks"), "tasks": {"colours": None}}
    content["anchor"] = {"texts": 6, "tokens": 8}
    content["gate"] = tiny.OPEN_GATE  # what it says of a random model is not what this is about
    path = make_experiment()
    path.write_text(yaml.safe_dump(content))
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    project = Project.open(path)
    result = run_loop(project, 1, Display())
    assert result.passed, result.reason
    assert {name for key, name in result.computed if key == "0001"} == set(stages_of("0001"))
    assert_trained_as_asked(project)


def assert_trained_as_asked(project):
    """Every layer has learned, with the rank, the number of steps and the rates of the experiment file."""
    asked, name = project.experiment.training, project.experiment.name
    adapter, pairs = (
        project.store.open(project.store.pointed(name, "0001", stage))
        for stage in ("adapter_checkpoint", "preference_pairs")
    )
    weights = load_file(adapter / "adapter_model.safetensors")
    assert all(tensor.any() for layer, tensor in weights.items() if "_B." in layer)
    adapted = {layer.split(".lora_")[0].rpartition(".")[2] for layer in weights}
    assert adapted == {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}
    assert {len(tensor) for layer, tensor in weights.items() if "_A." in layer} == {asked.lora_rank}
    log = pl.read_parquet(adapter / "training_log.parquet")
    rows = pl.read_parquet(pairs / "training_pairs.parquet").height
    assert log.height == -(-rows // asked.batch_size) * asked.epochs
    warm = [asked.learning_rate * step / asked.warmup_steps for step in range(min(log.height, asked.warmup_steps))]
    assert log["learning_rate"][: len(warm)].to_list() == pytest.approx(warm)


@pytest.mark.parametrize("template", [None, INSTRUCT])
def test_training_sees_a_question_token_by_token_as_answering_does(template, tmp_path):
    folder = make_model(tmp_path / "model", MISTRAL_3, template)
    policy = load_policy(folder, dtype="float32", system_prompt="Be brief." if template is None else None)
    trainer = make_trainer(folder, None, pairs(4), policy.system_prompt, RECIPE, tmp_path / "out", lambda *_: None)
    examples = sorted(trainer.train_dataset, key=lambda example: example["row"])
    asked = [encode(policy, f"Question {n}?") for n in range(4)]
    assert [example["prompt_ids"] for example in examples] == asked
    assert all(ids.count(1) == 1 and ids[0] == 1 for ids in asked)
    assert all(example["chosen_ids"][-1] == policy.tokenizer.eos_token_id for example in examples)


# -- LoRA targets ----------------------------------------------------------------------------------------


def test_only_the_named_layers_are_adapted(llama, tmp_path):
    recipe = type(RECIPE)(**{**RECIPE.__dict__, "lora_targets": ["q_proj", "mlp.up_proj"]})
    (tmp_path / "out").mkdir()
    train_adapter(llama, None, pairs(), None, recipe, tmp_path / "out")
    adapted = {
        name.split(".lora_")[0].rpartition(".")[2] for name in load_file(tmp_path / "out/adapter_model.safetensors")
    }
    assert adapted == {"q_proj", "up_proj"}


@pytest.mark.parametrize("target", ["q_prj", "lm_head"])
def test_layer_the_model_lacks_or_may_not_adapt_is_refused_before_anything_runs(target, make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    project = Project.open(make_experiment(training={"lora_targets": ["v_proj", target]}))
    with pytest.raises(UsageError, match=f"training.lora_targets: .*'{target}'.*nearest is '.*_proj'"):
        run_loop(project, 1, Display())
    assert project.store.pointed("tiny", "base", "base_scores") is None


def test_other_lora_targets_train_anew_and_answer_nothing_anew(ran):
    planner = Project.open(ran(1, training={"lora_targets": ["q_proj"]})).planner()
    assert planner.stage("0001", "preference_pairs").status == "fresh"
    checkpoint = planner.stage("0001", "adapter_checkpoint")
    assert checkpoint.causes == ['training.lora_targets: all-linear -> ["q_proj"]']


# -- what this machine lacks -----------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("policy", [{"quantization": "nf4"}, {"dtype": "float16"}])
def test_run_without_the_gpu_it_needs_is_refused_before_anything_is_computed(policy, make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    project = Project.open(make_experiment(policy={"device": "cuda", "dtype": "bfloat16", **policy}))
    assert project.planner().stage("base", "heldout_rows").status == "missing"
    with pytest.raises(UsageError, match=r"policy.device: cuda cannot be used here .*set it to cpu"):
        run_loop(project, 1, Display())
    assert project.store.pointed("tiny", "base", "base_scores") is None


def test_package_that_is_not_installed_is_named_with_the_extra_that_brings_it():
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    assert "pip install apt-assets[qlora]" in lacking("cpu", "nf4")


@pytest.fixture
def four_gpus(monkeypatch):
    """As many as CUDA_VISIBLE_DEVICES shows, of four."""

    def in_sight():
        return len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3").split(","))

    # Put back afterwards, whatever is set to it meanwhile.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: None)
    monkeypatch.setattr(torch.cuda, "device_count", in_sight)
    return monkeypatch


def test_of_several_gpus_that_nobody_chose_among_the_first_is_used(four_gpus):
    assert lacking("cuda", "none") is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(
    ("chosen", "problem"), [("2", None), ("1,2", "cuda would be 2 GPUs; set CUDA_VISIBLE_DEVICES")]
)
def test_the_gpu_that_is_chosen_is_used_and_two_of_them_are_refused(chosen, problem, four_gpus):
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", chosen)
    found = lacking("cuda", "none")
    assert found is None if problem is None else problem in found
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_gpus_that_are_in_use_before_one_could_be_chosen_are_refused(four_gpus):
    four_gpus.setattr(torch.cuda, "device_count", lambda: 4)
    assert "set CUDA_VISIBLE_DEVICES to the number of one" in lacking("cuda", "none")


def test_a_run_on_the_cpu_leaves_the_gpus_as_they_are(four_gpus):
    assert lacking("cpu", "none") is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("architecture", "changes", "what"),
    [(MISTRAL_3, {"sliding_window": 8}, "sliding_window"), (GEMMA_2, {}, "softcap")],
)
def test_attention_that_packed_rows_do_not_know_is_refused(architecture, changes, what, tmp_path):
    folder = make_model(tmp_path / "model", {**architecture, **changes})
    policy = load_policy(folder, dtype="float32", path="packed")
    with pytest.raises(NotImplementedError, match=f"uses .*{what}.*, which is not supported"):
        tiny.answers(policy, ["red"], max_new_tokens=2, batch_tokens=64)


def test_hub_id_that_is_not_on_this_machine_says_how_to_get_it(make_experiment):
    project = Project.open(make_experiment(policy={"model": "nobody/has-this"}))
    with pytest.raises(
        UsageError, match=r"(?s)policy.model: 'nobody/has-this' is neither.*hf download nobody/has-this"
    ):
        _ = project.models.base_model


def test_revision_of_a_hub_id_is_the_model_of_that_revision(make_experiment, tiny_folder, tmp_path, monkeypatch):
    """Two revisions in a hub cache as the hub's own client lays it out, read without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--me--mine"
    (repository / "refs").mkdir(parents=True)
    for name, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(tiny_folder / "policy", repository / "snapshots" / commit)
    (repository / "snapshots" / ("b" * 40) / "config.json").write_text("{}")
    found = {}
    for revision in (None, "v2", "b" * 40):
        project = Project.open(make_experiment(policy={"model": "me/mine", "revision": revision}))
        found[revision] = project.identity("base_model")
    assert found["v2"] == found["b" * 40] != found[None]
