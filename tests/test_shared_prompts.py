"""Training with each prompt computed once follows TRL's own run, step by step."""

import contextlib
import random

import pytest
from safetensors.torch import load_file

from resources.model.packing import register
from resources.training.fused_lora import fuse_lora
from resources.training.shared_prompts import completion_positions_only, give_reference, pack_pairs, share_prompts

pytestmark = pytest.mark.slow("loop")

COLUMNS = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "entropy")


def examples(count, same_length=False):
    """Prompts of many lengths, a shared system prompt, and every third pair a replay row."""
    draw = random.Random(5)
    rows = []
    for n in range(count):
        chosen = "".join(draw.choices("abcdef", k=6 if same_length else draw.randint(2, 9)))
        wrong = "".join(draw.choices("abcdef", k=6 if same_length else draw.randint(1, 9)))
        prompt = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Question {n}? " + "x" * draw.randint(0, 40)},
        ]
        answer = {"chosen": chosen, "rejected": chosen if n % 3 == 2 else wrong}
        rows.append({"prompt": prompt, **{k: [{"role": "assistant", "content": v}] for k, v in answer.items()}})
    return rows


def run(tiny_folder, out, rows, *, ours, previous=None, reference="previous", resume=None, **config):
    """(the run's log, the adapter's tensors) of TRL's trainer, with prompts shared or as it is."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder / "policy", attn_implementation=register() if ours else "sdpa", dtype=torch.float32
    )
    lora = None
    if previous is None:
        lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    else:
        model = PeftModel.from_pretrained(model, str(previous), is_trainable=True)
    settings = {
        "learning_rate": 5e-3, "per_device_train_batch_size": 4, "loss_type": ["sigmoid", "sft"],
        "loss_weights": [1.0, 0.7], "beta": 0.3, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "save_strategy": "no", "report_to": [], "logging_steps": 1, "disable_tqdm": True, "seed": 3,
        "max_length": 128, "num_train_epochs": 1,
    }  # fmt: skip
    torch.manual_seed(3)
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(out), **{**settings, **config}),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_folder / "policy"),
        peft_config=lora,
    )
    if reference == "base" and previous is not None:
        trainer.model.delete_adapter("ref")
    if ours:
        fuse_lora(trainer.model)
        share_prompts(trainer.model.get_base_model().base_model)
        chosen, rejected = [], []
        for example in trainer.train_dataset:
            pair = trainer.compute_ref_log_probs(trainer.model, trainer.data_collator([example]))
            chosen.append(float(pair[0]))
            rejected.append(float(pair[1]))
        give_reference(trainer, chosen, rejected)
    with completion_positions_only() if ours else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=resume)
    trainer.model.save_pretrained(out, selected_adapters=["default"])
    return [entry for entry in trainer.state.log_history if "loss" in entry], load_file(
        out / "adapter_model.safetensors"
    )


@pytest.fixture(scope="module")
def previous(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("previous")
    run(tiny_folder, folder, examples(16), ours=False, learning_rate=2e-2)
    return folder


@pytest.mark.parametrize("case", ["first iteration", "reference previous", "reference base", "log-ratios per token"])
def test_twenty_steps_follow_trl_in_loss_rewards_and_gradient_norm(case, tiny_folder, previous, tmp_path):
    setting = {
        "first iteration": {},
        "reference previous": {"previous": previous},
        "reference base": {"previous": previous, "reference": "base"},
        # A beta for means, at which the term is not lost beside the NLL.
        "log-ratios per token": {"previous": previous, "loss_type": ["sigmoid_norm", "sft"], "beta": 3.0},
    }[case]
    ours, _ = run(tiny_folder, tmp_path / "ours", examples(80), ours=True, **setting)
    theirs, _ = run(tiny_folder, tmp_path / "theirs", examples(80), ours=False, **setting)
    assert len(ours) == len(theirs) == 20
    for column in COLUMNS:
        # float32, 20 steps: what separates the two is the order of sums, about 1e-6 a step.
        expected = pytest.approx([e[column] for e in theirs], rel=1e-4, abs=1e-4)
        assert [e[column] for e in ours] == expected, column
    assert ours[-1]["loss"] < ours[0]["loss"]


def test_eight_pairs_at_once_equal_eight_steps_of_one_pair_accumulated(tiny_folder, tmp_path):
    # Answers of one length: TRL's NLL is a mean over a batch's tokens, and a mean of means is another number
    # when lengths differ, in TRL itself too.
    rows = examples(32, same_length=True)
    one, at_once = run(tiny_folder, tmp_path / "8x1", rows, ours=True, per_device_train_batch_size=8)
    eight, apart = run(
        tiny_folder, tmp_path / "1x8", rows, ours=True, per_device_train_batch_size=1, gradient_accumulation_steps=8
    )
    for column in ("loss", "grad_norm"):
        assert [e[column] for e in one] == pytest.approx([e[column] for e in eight], rel=1e-4, abs=1e-5), column
    assert max(float((at_once[key] - apart[key]).abs().max()) for key in at_once) < 1e-5


def test_a_resumed_run_equals_a_straight_one(tiny_folder, tmp_path):
    rows = examples(40)
    saving = {"save_strategy": "steps", "save_steps": 4}
    straight, whole = run(tiny_folder, tmp_path / "straight", rows, ours=True, **saving)
    resumed, rest = run(
        tiny_folder, tmp_path / "resumed", rows, ours=True, resume=str(tmp_path / "straight" / "checkpoint-4"), **saving
    )
    assert [e["loss"] for e in resumed] == [e["loss"] for e in straight]
    assert all(whole[key].equal(rest[key]) for key in whole)


def test_what_a_batch_shares_is_in_the_pack_once():
    prompt = list(range(20))
    pairs = [([*prompt, 30, 31], [*prompt, 40]), ([*prompt[:15], 50, 60, 61], [*prompt[:15], 50, 70])]
    sequences = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    pack, places = pack_pairs(sequences, 22, "cpu")
    # 15 tokens of all, 5 and 1 of each pair, and all but the last token of each answer.
    assert pack.used == 15 + (5 + 1) + (1 + 1)
    for number, ids in enumerate(sequences):
        kept = pack.ids[0, places[number, : len(ids) - 1]].tolist()
        assert kept == ids[:-1]
        assert pack.positions[0, places[number, : len(ids) - 1]].tolist() == list(range(len(ids) - 1))
