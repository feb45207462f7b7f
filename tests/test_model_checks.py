"""What is wrong with a model is one sentence that names the setting, before anything is computed: of base model,
adapter, encoder and grader alike."""

import re
import shutil
import subprocess
import sys

import dagster as dg
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from apt_assets.engine.display import Display
from apt_assets.method.splits import row_id
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from resources.model import checks
from resources.model.files import problem_with_file
from tests import tiny
from tests.broken_models import (
    BROKEN,
    POINTER,
    WITHOUT_ANSWERS,
    change,
    change_weights,
    cut,
    lost_weight,
    pointer,
    shards,
    template,
)  # fmt: skip

pytestmark = pytest.mark.slow("model")

GRADED = {"kind": "rubric"}
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{% endfor %}"
)
FORGETS_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
)


@pytest.fixture
def broken(tiny_folder, tmp_path):
    """A function (prepare, part) -> a copy of that tiny model, prepared."""

    def make(prepare, part="policy"):
        folder = tmp_path / f"broken-{part}"
        shutil.copytree(tiny_folder / part, folder)
        prepare(folder)
        return str(folder)

    return make


def problem(path):
    with pytest.raises(UsageError) as raised:
        Project.open(path).check()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# -- base model and grader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*BROKEN, *WITHOUT_ANSWERS])
def test_base_model_that_cannot_be_used_is_one_sentence_that_names_its_setting(case, broken, make_experiment):
    prepare, says = {**BROKEN, **WITHOUT_ANSWERS}[case]
    said = problem(make_experiment(policy={"model": broken(prepare)}))
    assert said.startswith("policy.model: ")
    assert re.search(says, said), said


@pytest.mark.parametrize("case", list(BROKEN))
def test_grader_that_cannot_be_used_is_the_same_sentence_with_its_own_setting(case, broken, make_experiment):
    prepare, says = BROKEN[case]
    said = problem(make_experiment(assessor={**GRADED, "rubric": {"model": broken(prepare)}}))
    assert said.startswith("assessor.rubric.model: ")
    assert re.search(says, said), said


@pytest.mark.parametrize("case", list(WITHOUT_ANSWERS))
def test_grader_that_writes_nothing_needs_no_end(case, broken, make_experiment):
    folder = broken(WITHOUT_ANSWERS[case][0])
    Project.open(make_experiment(assessor={**GRADED, "rubric": {"model": folder}})).model_checks.all()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (REFUSES_SYSTEM, r"takes no turn of the system \(System role not supported\)"),
        (ALTERNATES, r"takes no turn of the system \(alternate\)"),
        (FORGETS_SYSTEM, "leaves out the turn of the system"),
    ],
)
def test_system_prompt_for_a_template_without_its_turn_is_refused_and_without_one_runs(
    written, says, broken, make_experiment
):
    folder = broken(template(written))
    said = problem(make_experiment(policy={"model": folder, "system_prompt": "Say a colour."}))
    assert said.startswith("policy.model: ")
    assert "set policy.system_prompt to null" in said
    with pytest.raises(UsageError, match=says):
        Project.open(make_experiment(policy={"model": folder, "system_prompt": "Say a colour."})).check()
    Project.open(make_experiment(policy={"model": folder})).check()


def tied(folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def half_precision(folder):
    weights = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def token_too_many(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    assert max(tokenizer.get_vocab().values()) == 261


def left_overs(folder):
    (folder / "consolidated.safetensors").write_text(POINTER)
    (folder / "training_args.json").write_text("no JSON")
    (folder / "README.md").write_text("")
    change_weights(folder, lambda weights: weights.update({"model.rotary_emb.inv_freq": torch.ones(8)}))


@pytest.mark.parametrize(
    "prepare",
    [
        shards, tied, half_precision, token_too_many, left_overs,
        lambda folder: (folder / "chat_template.jinja").unlink(),
        lambda folder: (folder / "generation_config.json").unlink(),
    ],
    ids=["shards", "tied head", "float16", "one special token too many", "left-overs", "no template", "no generation"],
)  # fmt: skip
def test_sound_model_of_a_less_common_form_is_let_through(prepare, broken, make_experiment):
    Project.open(make_experiment(policy={"model": broken(prepare)})).check()


@pytest.mark.parametrize("name", ["gpt2", "bloom", "gpt_neox", "opt", "mixtral", "qwen3_moe", "gemma2", "mamba", "phi"])
def test_model_of_another_architecture_is_let_through(name, tiny_folder, make_experiment, tmp_path):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shutil.copytree(tiny_folder / "policy", tmp_path / "model")
    kind = CONFIG_MAPPING[name]
    sizes = {
        "vocab_size": 261, "hidden_size": 32, "n_embd": 32, "d_model": 32, "intermediate_size": 32, "ffn_dim": 32,
        "num_hidden_layers": 1, "n_layer": 1, "num_attention_heads": 2, "n_head": 2, "num_key_value_heads": 2,
        "head_dim": 16, "num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "word_embed_proj_dim": 32,
        "eos_token_id": 0, "bos_token_id": None, "pad_token_id": 1, "moe_intermediate_size": 16,
    }  # fmt: skip
    config = kind(**{key: value for key, value in sizes.items() if hasattr(kind(), key)})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    Project.open(make_experiment(policy={"model": str(tmp_path / "model")})).model_checks.all()


# -- adapter and encoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (pointer("adapter_model.safetensors"), "adapter_model.safetensors is a Git LFS pointer"),
        (cut("adapter_model.safetensors", 0.5), "adapter_model.safetensors is not whole"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"not weights"), "cannot be read as safet"),
        (cut("adapter_config.json", 0.5), "adapter_config.json is not JSON"),
        (
            lambda folder: change_adapter(folder, lambda weights: next(iter(weights.values()))[0, 0].fill_(1e999)),
            "has values that are not finite numbers",
        ),
    ],
)
def test_adapter_that_is_damaged_is_the_same_sentence(prepare, says, tiny_folder, make_experiment, tmp_path):
    folder = tiny.make_adapter(tmp_path / "adapter", tiny_folder / "policy")
    prepare(folder)
    said = problem(make_experiment(policy={"initial_adapter": str(folder)}))
    assert said.startswith("policy.initial_adapter: ")
    assert says in said


def change_adapter(folder, changed):
    weights = load_file(folder / "adapter_model.safetensors")
    changed(weights)
    save_file(weights, folder / "adapter_model.safetensors")


def test_whole_model_named_as_an_adapter_belongs_into_policy_model(tiny_folder, make_experiment):
    said = problem(make_experiment(policy={"initial_adapter": str(tiny_folder / "policy")}))
    assert said.startswith("policy.initial_adapter: ")
    assert "is a whole model and no adapter: name it in policy.model" in said


def without_pooling(folder):
    shutil.rmtree(folder / "1_Pooling")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (pointer("model.safetensors"), "model.safetensors is a Git LFS pointer"),
        (cut("model.safetensors", 0.7), "model.safetensors is not whole"),
        (pointer("1_Pooling/config.json"), "config.json is a Git LFS pointer"),
        (without_pooling, "modules.json names 1_Pooling, which is not there"),
        (cut("modules.json", 0.5), "modules.json is not JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter lies in the same folder"),
        (lambda folder: (folder / "modules.json").unlink(), "there is no modules.json"),
        (
            lambda folder: change_weights(folder, lambda weights: weights.pop("encoder.layer.0.output.dense.weight")),
            "1 weights that a BertModel needs are not there (encoder.layer.0.output.dense.weight)",
        ),
        (
            lambda folder: change_weights(folder, lambda weights: weights["embeddings.LayerNorm.bias"].fill_(1e999)),
            "vectors that are not finite numbers",
        ),
        (lambda folder: change(folder / "config.json", vocab_size=300), "another shape"),
        (lambda folder: change(folder / "config.json", model_type="bert9"), "cannot be loaded and embed a text"),
    ],
)
def test_encoder_that_cannot_be_used_is_the_same_sentence(prepare, says, broken, make_experiment):
    said = problem(make_experiment(retrieval={"encoder": broken(prepare, "encoder")}))
    assert said.startswith("retrieval.encoder: ")
    assert says in said, said


def test_encoder_and_language_model_in_each_others_place_say_where_they_belong(tiny_folder, make_experiment):
    said = problem(make_experiment(policy={"model": str(tiny_folder / "encoder")}))
    assert said.startswith("policy.model: ")
    assert "is a sentence encoder (it has a modules.json): name it in retrieval.encoder" in said
    said = problem(make_experiment(retrieval={"encoder": str(tiny_folder / "policy")}))
    assert said.startswith("retrieval.encoder: ")
    assert "no modules.json" in said


def test_questions_that_the_encoder_cuts_are_counted_once_in_a_note(make_experiment, tmp_path):
    rows = tiny.domain_rows(40)
    for row in rows[:20]:
        row["prompt"] = f"{row['prompt']} {'and so on ' * 8}"
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)
    lines = []

    class Shown(Display):
        def line(self, text):
            lines.append(text)

    project = Project.open(make_experiment())
    run_loop(project, 1, Shown())
    pool = project.artifact(project.planner().stage("0001", "retrieval_index").manifest) / "pool.parquet"
    kept = pl.read_parquet(pool)["row_id"].to_list()
    cut_rows = sum(row_id(row["prompt"]) in kept for row in rows[:20])
    assert cut_rows > 0
    notes = [line for line in lines if "retrieval.encoder reads" in line]
    assert notes == [
        f"{cut_rows} of {len(kept)} questions are longer than the 64 tokens that retrieval.encoder reads: the vector "
        "of such a one is of its beginning"
    ]


# -- folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "encoder"])
def test_what_is_no_folder_of_a_model_says_what_to_name(key, make_experiment, tiny_folder, tmp_path):
    section, part = {"model": ("policy", "policy"), "encoder": ("retrieval", "encoder")}[key]
    file = tiny_folder / part / "model.safetensors"
    said = problem(make_experiment(**{section: {key: str(file)}}))
    assert f"{section}.{key}: {file} is a file: name the folder" in said
    (tmp_path / "empty").mkdir()
    assert "no safetensors in" in problem(make_experiment(**{section: {key: str(tmp_path / "empty")}}))
    (tmp_path / "empty" / "llama.Q4_K.gguf").write_bytes(b"GGUF")
    said = problem(make_experiment(**{section: {key: str(tmp_path / "empty")}}))
    assert "(only llama.Q4_K.gguf, of llama.cpp's form)" in said


def test_file_that_this_user_may_not_read_is_named(make_experiment, tiny_folder, monkeypatch):
    file = tiny_folder / "policy" / "tokenizer.json"
    monkeypatch.setattr("os.access", lambda path, mode: path != file)  # root may read everything
    assert f"policy.model: this user may not read {file}" in problem(make_experiment())


# -- when it is said ---------------------------------------------------------------------------------------


def test_run_with_an_unusable_encoder_or_grader_computes_nothing(broken, make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    encoder = broken(lambda folder: change(folder / "config.json", vocab_size=300), "encoder")
    grader = broken(lost_weight)
    for changes in ({"retrieval": {"encoder": encoder}}, {"assessor": {**GRADED, "rubric": {"model": grader}}}):
        project = Project.open(make_experiment(**changes))
        with pytest.raises(UsageError, match=next(iter(changes))):
            run_loop(project, 1, Display())
        assert project.store.pointed("tiny", "base", "heldout_rows") is None


def test_plan_tells_what_the_files_alone_tell_and_loads_no_library_for_it(broken, make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    path = make_experiment(policy={"model": broken(cut("model.safetensors", 0.5))})
    code = (
        "import sys\nfrom apt_assets import cli\nsys.argv = ['apt-assets', 'plan', '-e', sys.argv[1]]\n"
        "try:\n    cli.main()\nfinally:\n    assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "error: policy.model: " in done.stderr
    assert "is not whole" in done.stderr


def test_in_dagster_each_step_fails_with_the_same_sentence(broken, make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    path = make_experiment(policy={"model": broken(lost_weight)})
    said = problem(path)
    project = Project.open(path)
    job = build_definitions(project, Display()).resolve_job_def("score_base")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert {failure.user_failure_data.description for failure in failures} == {said}
    assert project.store.pointed("tiny", "base", "heldout_rows") is None


def test_sound_model_is_asked_once_for_its_content_and_repaired_one_is_asked_anew(
    broken, make_experiment, tiny_folder, monkeypatch
):
    asked, check = [], checks.check_language_model
    monkeypatch.setattr(
        checks, "check_language_model", lambda *given, **named: asked.append(given) or check(*given, **named)
    )
    folder = broken(lost_weight)
    path = make_experiment(policy={"model": folder})
    for _ in range(2):
        problem(path)
    assert len(asked) == 2, "what is wrong is not remembered"
    shutil.copyfile(tiny_folder / "policy" / "model.safetensors", f"{folder}/model.safetensors")
    for _ in range(2):
        Project.open(path).check()
    assert len(asked) == 3
    Project.open(make_experiment(policy={"model": folder, "system_prompt": "Say a colour."})).check()
    assert len(asked) == 4, "another system prompt is another question"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{" * 100_000, "is not JSON"),
        ("tokenizer.json", "", "is empty"),
        ("merges.txt", POINTER, "is a Git LFS pointer, not the file itself"),
        ("vocab.txt", "a\nb\n", None),
        ("config.json", "{}", None),
    ],
)
def test_file_is_judged_by_its_name_and_first_bytes(name, content, says, tmp_path):
    (tmp_path / name).write_text(content)
    found = problem_with_file(tmp_path / name)
    assert found is None if says is None else found.startswith(says)
