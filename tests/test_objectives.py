"""Plain fine-tuning by the same engine: the loss is TRL's SFTTrainer's, and replay rows may be the whole pool."""

import random
import shutil

import polars as pl
import pytest
from safetensors.torch import load_file

from apt_assets.drawing.plots import training_curves
from apt_assets.engine.display import Display
from apt_assets.loop.work import work_of
from apt_assets.method.mining import draw_questions
from apt_assets.method.pairing import with_replay_from_pool
from apt_assets.method.splits import row_id
from apt_assets.orchestration.run import run_loop
from apt_assets.report.export import write_pairs
from apt_assets.report.findings import findings
from apt_assets.report.model_card import Names, model_card
from apt_assets.report.page import page
from apt_assets.report.show import rows_of
from resources.model.packing import common_prefix
from resources.model.policy import encode, load_policy
from resources.model.scoring import Question
from resources.store.tables import read_table
from resources.training.examples import as_conversations
from resources.training.shared_prompts import pack_pairs
from resources.training.trainer import TrainingRecipe, make_trainer, train_adapter
from schemas.tables import TABLES
from tests import tiny
from tests.test_trainer import RECIPE, train

pytestmark = pytest.mark.slow("loop")

SFT = TrainingRecipe(**{**RECIPE.__dict__, "objective": "sft", "epochs": 2})
SYSTEM = "Be brief."


def rows_to_learn(count=18, rejected="no"):
    """Prompts and answers of many lengths."""
    draw = random.Random(7)
    rows = [
        (f"Question {n}? " + "x" * draw.randint(0, 40), "".join(draw.choices("abcdef", k=draw.randint(1, 12))))
        for n in range(count)
    ]
    return pl.DataFrame(
        [(*row, rejected, 1.0) for row in rows], schema=TABLES["training_pairs"].empty().schema, orient="row"
    )


def trl_sft(tiny_folder, previous, rows, out):
    """(the log, the adapter's tensors) of TRL's SFTTrainer on the answers alone."""
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "policy", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder / "policy")
    examples = as_conversations(rows, SYSTEM, tokenizer)
    trainer = SFTTrainer(
        model=PeftModel.from_pretrained(model, str(previous), is_trainable=True),
        args=SFTConfig(
            output_dir=str(out), learning_rate=SFT.learning_rate, lr_scheduler_type="linear", warmup_steps=0,
            per_device_train_batch_size=SFT.batch_size, num_train_epochs=SFT.epochs, max_length=SFT.max_length,
            completion_only_loss=True, seed=SFT.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
            save_strategy="no", report_to=[], logging_steps=1, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": e["prompt"], "completion": e["chosen"]} for e in examples]),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    trainer.model.save_pretrained(out)
    return [e for e in trainer.state.log_history if "loss" in e], load_file(out / "adapter_model.safetensors")


def test_sft_follows_trls_own_sft_trainer_in_loss_gradient_norm_and_adapter(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "previous")
    rows = rows_to_learn()
    log = train(tiny_folder, tmp_path / "ours", tmp_path / "previous", rows, objective="sft", epochs=SFT.epochs)
    theirs, expected = trl_sft(tiny_folder, tmp_path / "previous", rows, tmp_path / "theirs")
    assert len(theirs) == log.height == 10
    for column in ("loss", "grad_norm", "learning_rate"):
        # float32: what separates the two is the order of sums.
        assert log[column].to_list() == pytest.approx([e[column] for e in theirs], rel=1e-4, abs=1e-6), column
    ours = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    before = load_file(tmp_path / "previous" / "adapter_model.safetensors")
    assert ours.keys() == expected.keys()
    # Adam makes of a gradient near 0, whose sign is noise, a step like any other.
    apart = max(float((ours[key] - expected[key]).abs().max()) for key in ours)
    moved = max(float((ours[key] - before[key]).abs().max()) for key in ours)
    assert apart < 1e-2 * moved


def test_sft_asks_for_no_reference_and_what_it_does_not_use_changes_no_bit(tiny_folder, tmp_path):
    def fill(compute):
        raise AssertionError("asked for the reference's log-probabilities")

    other = {"beta": 0.7, "nll_weight": 0.0, "reference": "base", "loss": "sigmoid_norm"}
    found = []
    for name, rejected, changes in (("one", "no", {}), ("two", "something quite different", other)):
        (tmp_path / name).mkdir()
        log = train_adapter(
            tiny_folder / "policy", None, rows_to_learn(rejected=rejected), SYSTEM,
            TrainingRecipe(**{**SFT.__dict__, **changes}), tmp_path / name, fill_reference=fill,
        )  # fmt: skip
        assert log["margin"].null_count() == log["reward_accuracy"].null_count() == log.height
        found.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_sft_passes_no_token_of_a_rejected_answer_through_the_model(tiny_folder, tmp_path):
    trainer = make_trainer(
        tiny_folder / "policy", None, rows_to_learn(), SYSTEM, SFT, tmp_path, lambda step, total: None
    )
    examples = [trainer.train_dataset[n] for n in range(4)]
    batch = trainer.data_collator(examples)
    scored = batch["completion_mask"].sum(1).tolist()
    assert scored == [len(e["chosen_ids"]) for e in examples] + [0] * 4
    sequences = [ids[:n] for ids, n in zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(1), strict=True)]
    whole = [e["prompt_ids"] + e["chosen_ids"] for e in examples]
    pack, _ = pack_pairs(sequences, batch["input_ids"].shape[1], "cpu")
    shared = common_prefix(whole)
    # The last token of an answer predicts nothing.
    assert pack.used == shared + sum(len(ids) - 1 - shared for ids in whole)


# -- replay rows from the pool -------------------------------------------------------------------------


def made_up_pool(count=1000, pairs=100):
    """(pairs, training rows, graded answers to half of them, the ones that mining draws)."""
    train = pl.DataFrame([(row_id(f"q{n}"), f"q{n}", "gold", None) for n in range(count)],
                         schema=TABLES["train"].empty().schema, orient="row").sort("row_id")  # fmt: skip
    mined = draw_questions(train, "0001", count // 2, 17).with_columns(
        prediction=pl.lit("wrong"), grade=pl.lit(1, pl.Int8), exact=pl.lit(False)
    )
    paired = mined.head(pairs).select(
        "row_id", pl.col("row_id").alias("case_id"), pl.lit("bad_case").alias("kind"), "prompt",
        pl.col("answer").alias("chosen"), pl.col("prediction").alias("rejected"), "grade",
        pl.lit(1.0).alias("weight"),
    )  # fmt: skip
    return paired, train, mined


def replay(iteration="0001", seed=17, share: float | None = 1.0):
    pairs, train, mined = made_up_pool()
    found = with_replay_from_pool(pairs, train, [mined], share, iteration, seed)
    assert found.head(pairs.height).equals(pairs)
    return found.slice(pairs.height)


def test_pool_replay_is_drawn_afresh_by_iteration_and_seed_whether_a_row_was_asked_or_not():
    drawn = replay()
    _, _, mined = made_up_pool()
    assert drawn.height == 100
    assert drawn.equals(replay())
    for other in (replay(iteration="0002"), replay(seed=18)):
        assert len(set(other["row_id"]) & set(drawn["row_id"])) < 30
    # 400 of the 900 rows that are no pair were asked: 44 of 100 drawn, give or take.
    asked = drawn.filter(pl.col("row_id").is_in(mined["row_id"].to_list()))
    assert 25 < asked.height < 65
    assert asked["grade"].to_list() == [1] * asked.height
    assert drawn["grade"].null_count() == 100 - asked.height
    assert drawn["chosen"].equals(drawn["rejected"])


def test_pool_replay_without_a_limit_is_every_other_row_and_with_share_0_none():
    pairs, train, _ = made_up_pool()
    everything = replay(share=None)
    assert sorted([*everything["row_id"], *pairs["row_id"]]) == train["row_id"].to_list()
    assert everything.equals(replay(share=None, iteration="0002", seed=18))
    assert replay(share=0.0).height == 0


# -- the loop ------------------------------------------------------------------------------------------

WHOLE_POOL = {"replay": "pool", "replay_share": None}


def open_sft(home, tiny_folder, pairs=WHOLE_POOL, **training):
    training = {"objective": "sft", "learning_rate": 1e-2, "epochs": 3, "batch_size": 4, **training}
    return tiny.open_project(home, tiny_folder, training=training, pairs=pairs)


@pytest.fixture(scope="module")
def fine_tuned(tiny_folder, tmp_path_factory):
    """The home of a project with one iteration of plain fine-tuning on the whole pool: to be read."""
    home = tmp_path_factory.mktemp("fine-tuned")
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
    result = run_loop(open_sft(home, tiny_folder), 1, Display())
    assert result.passed, result.reason
    return home


@pytest.fixture
def project(fine_tuned, tiny_folder):
    return open_sft(fine_tuned, tiny_folder)


def stored(project, stage, file=None):
    manifest = project.store.pointed("tiny", "0001", stage)
    return read_table(project.store.open(manifest) / f"{file or stage}.parquet")


def stale(project):
    planner = project.planner()
    return [plan.stage for plan in planner.plan(1) if plan.status != "fresh"]


def test_card_calls_fine_tuning_what_it_is(project):
    card = model_card(project, project.planner(), "0001", Names.here(project), merged=False)
    assert "after fine-tuning (NLL) on the right answers of the domain" in card
    assert "- sft\n" in card
    assert "dpo" not in card.lower().replace("`training.objective`", "")


def test_whole_pool_trains_each_training_row_once_no_held_out_one_and_grades_only_what_was_asked(project):
    pairs, train = stored(project, "preference_pairs"), stored(project, "domain_dataset", "train")
    assert sorted(pairs["row_id"]) == train["row_id"].to_list()
    assert stored(project, "preference_pairs", "training_pairs").height == train.height
    asked = {*stored(project, "eval_predictions")["row_id"], *stored(project, "neighbors")["row_id"]}
    assert 0 < len(asked) < train.height
    assert set(pairs.filter(pl.col("grade").is_not_null())["row_id"]) == asked
    replayed = pairs.filter(pl.col("kind") == "replay")
    assert replayed["chosen"].equals(replayed["rejected"])
    assert replayed.height == train.height - pairs.filter(pl.col("kind") != "replay").height > 0


def nll(project, rows, adapter):
    """Of the gold answers, nats per row."""
    system_prompt = project.experiment.policy.system_prompt
    policy = load_policy(project.models.base_model, adapter, dtype="float32", system_prompt=system_prompt)
    gold = [policy.tokenizer(answer + policy.tokenizer.eos_token)["input_ids"] for answer in rows["chosen"]]
    contexts = [encode(policy, prompt) for prompt in rows["prompt"]]
    questions = [Question(context, (ids,)) for context, ids in zip(contexts, gold, strict=True)]
    scored = tiny.scores(policy.model, questions, batch_tokens=1024)
    return -sum(log_prob for ((log_prob, _),) in scored) / len(scored)


def test_sft_lowers_the_nll_of_pool_rows_that_the_policy_was_not_asked(project):
    rows = stored(project, "preference_pairs").filter(pl.col("grade").is_null())
    adapter = project.store.open(project.store.pointed("tiny", "0001", "adapter_checkpoint"))
    assert nll(project, rows, adapter) < nll(project, rows, None) - 1


def test_sft_computes_no_reference_row(project):
    steps = -(-stored(project, "preference_pairs").height // 4) * 3
    assert stored(project, "adapter_checkpoint", "training_log").height == steps
    trained = {"pairs": stored(project, "preference_pairs").height, "pairs_left_out": 0, "pairs_cut": 0}
    assert project.store.pointed("tiny", "0001", "adapter_checkpoint").work == {**trained, "steps": steps}
    assert not (project.store.root / "rows" / "references").exists()


@pytest.mark.parametrize(
    "unused", [{"beta": 0.7}, {"nll_weight": 0.0}, {"reference": "base"}, {"loss": "sigmoid_norm"}]
)
def test_setting_that_sft_does_not_use_makes_nothing_stale_under_sft(fine_tuned, tiny_folder, unused):
    assert stale(open_sft(fine_tuned, tiny_folder, **unused)) == []
    as_dpo = open_sft(fine_tuned, tiny_folder, objective="dpo")
    assert stale(as_dpo)[0] == "adapter_checkpoint"
    planned = {plan.stage: work_of(as_dpo, as_dpo.planner(), plan) for plan in as_dpo.planner().plan(1)}
    assert planned["adapter_checkpoint"].amounts["references"] == stored(as_dpo, "preference_pairs").height


def test_changed_replay_share_answers_nothing_anew(fine_tuned, tiny_folder, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(fine_tuned, home)
    project = open_sft(home, tiny_folder, {"replay": "pool", "replay_share": 0.1})
    assert stale(project)[0] == "preference_pairs"
    result = run_loop(project, 1, Display())
    assert {"preference_pairs", "adapter_checkpoint"} <= {stage for _, stage in result.computed}
    assert "similar_predictions" not in {stage for _, stage in result.computed}
    assert project.store.pointed("tiny", "0001", "preference_pairs").work == {}, "it answers and grades nothing itself"
    kinds = stored(project, "preference_pairs")["kind"].to_list()
    assert kinds.count("replay") == round(0.1 * (len(kinds) - kinds.count("replay"))) > 0


def test_report_show_and_export_cope_with_rows_that_the_policy_was_not_asked(project, tmp_path):
    text = page(findings(project))
    assert "reward margin" not in text
    assert "loss, nats" in text
    columns, rows, height = rows_of(project, "preference_pairs", "1", 100)
    assert height == len(rows)
    assert None in {row[columns.index("grade")] for row in rows}
    manifest = project.store.pointed("tiny", "0001", "preference_pairs")
    write_pairs(project, project.store.open(manifest) / "preference_pairs.parquet", tmp_path / "out")
    assert '"grade": null' in (tmp_path / "out" / "train.jsonl").read_text()


def test_curves_of_both_objectives_have_a_margin_where_it_is_known():
    row = {"step": 1, "loss": 2.0, "margin": None, "reward_accuracy": None, "grad_norm": 1.0, "learning_rate": 1e-3}
    sft, dpo = [row, {**row, "step": 2}], [{**row, "step": n, "margin": 0.1, "reward_accuracy": 0.5} for n in (1, 2)]
    assert "reward margin" not in training_curves({"0001": sft})
    both = training_curves({"0001": sft, "0002": dpo})
    assert "0002, reward margin" in both
    assert "0001, reward margin" not in both
