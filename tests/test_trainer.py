"""The training path: TRL's own numbers, the reference model, and what is left on disk."""

import shutil

import polars as pl
import pytest
from safetensors.torch import load_file

from apt_assets.method.splits import row_id
from resources.training.trainer import Diverged, TrainingRecipe, make_trainer, train_adapter
from schemas.tables import PreferencePairs
from tests import tiny

pytestmark = pytest.mark.slow("loop")

RECIPE = TrainingRecipe(
    learning_rate=1e-2, beta=0.1, nll_weight=1.0, reference="previous", lora_rank=4, lora_alpha=8, batch_size=4,
    epochs=1, warmup_steps=0, max_length=128, batch_tokens=512, seed=3, dtype="float32", device="cpu",
)  # fmt: skip


def pairs(count=16, replay=False):
    rows = [
        (row_id(f"q{n}"), row_id("case"), "replay" if replay else "bad_case", f"Question {n}?", "blue",
         "blue" if replay else f"wrong {n}", 1, 1.0)
        for n in range(count)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PreferencePairs.empty().schema, orient="row")


def train(tiny_folder, out, previous=None, rows=None, **changes):
    recipe = TrainingRecipe(**{**RECIPE.__dict__, **changes})
    out.mkdir()
    return train_adapter(tiny_folder / "policy", previous, pairs() if rows is None else rows, "Be brief.", recipe, out)


def test_training_that_diverges_ends_at_that_step_and_names_the_learning_rate(tiny_folder, tmp_path):
    with pytest.raises(Diverged, match=r"diverged at step \d+ of \d+: .*lower training.learning_rate"):
        train(tiny_folder, tmp_path / "out", learning_rate=1e30)


def test_same_seed_gives_the_same_adapter_and_no_pickle_is_left(tiny_folder, tmp_path):
    for name in ("one", "two"):
        train(tiny_folder, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    one, two = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_reference_previous_starts_at_margin_zero_and_reference_base_does_not(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "first")
    previous = train(tiny_folder, tmp_path / "previous", tmp_path / "first")
    base = train(tiny_folder, tmp_path / "base", tmp_path / "first", reference="base")
    assert previous["margin"][0] == pytest.approx(0, abs=1e-5)
    assert base["margin"][0] > 0.01


def test_next_iteration_continues_the_previous_adapter(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "first")
    train(tiny_folder, tmp_path / "second", tmp_path / "first", learning_rate=1e-9)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all((first[key] - second[key]).abs().max() < 1e-6 for key in first)


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm"])
def test_replay_row_has_no_dpo_gradient(tiny_folder, tmp_path, loss):
    log = train(tiny_folder, tmp_path / "replay", rows=pairs(8, replay=True), nll_weight=0.0, loss=loss)
    assert log["grad_norm"].to_list() == pytest.approx([0.0] * log.height, abs=1e-7)


def test_no_pairs_is_a_clear_error(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="no preference pair"):
        train(tiny_folder, tmp_path / "none", rows=pairs(0))


@pytest.mark.parametrize("tail", ["<think>\n", "<think>\n\n</think>\n\n"])
def test_tail_of_a_generation_prompt_is_trained_as_it_is_asked(tail, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder / "policy", tmp_path / "policy")
    template = (tmp_path / "policy" / "chat_template.jinja").read_text()
    (tmp_path / "policy" / "chat_template.jinja").write_text(template.replace("<|assistant|>", f"<|assistant|>{tail}"))
    trainer = make_trainer(tmp_path / "policy", None, pairs(4), "Be brief.", RECIPE, tmp_path / "out", lambda *_: None)
    tokenizer = trainer.processing_class
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(2)])
    read = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    asked = f"<|system|>Be brief.<|end|><|user|>Question 1?<|end|><|assistant|>{tail}"
    assert read[1::2] == [f"{asked}blue<|end|>", f"{asked}wrong 1<|end|>"]
    scored = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert scored[1::2] == ["blue<|end|>", "wrong 1<|end|>"]


def test_dropout_that_a_model_has_as_a_function_is_off_in_training(tmp_path):
    from transformers import BioGptConfig, BioGptForCausalLM

    tokenizer = tiny.make_tokenizer()
    config = BioGptConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, hidden_dropout_prob=0.5, layerdrop=0.5, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BioGptForCausalLM(config).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    first, second = (train(tmp_path, tmp_path / f"{seed}", seed=seed, learning_rate=1e-9) for seed in (1, 2))
    assert first["margin"][0] == pytest.approx(0, abs=1e-5), "a policy is its own reference before the first step"
    assert second["margin"][0] == pytest.approx(0, abs=1e-5)


def test_what_a_launcher_says_of_precision_trains_no_other_adapter(tiny_folder, tmp_path, monkeypatch):
    train(tiny_folder, tmp_path / "one", path="plain")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    train(tiny_folder, tmp_path / "two", path="plain")
    one, two = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
