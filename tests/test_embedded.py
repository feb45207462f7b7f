"""The real embedded models: what `make demo` stands on."""

import json

import polars as pl
import pytest

from apt_assets.experiment import REPOSITORY
from apt_assets.method.splits import row_id
from resources.embedded import CHAPTERS, prepare
from resources.policy_model import generate, load_policy
from resources.trainer import TrainingRecipe, train_adapter
from schemas import empty_table

CACHE = REPOSITORY / ".apt" / "cache"


@pytest.fixture(scope="module")
def icd10():
    prepare(CACHE)
    return [json.loads(line) for line in (CACHE / "icd10.jsonl").read_text().splitlines()]


def test_domain_has_twelve_thousand_terms_of_21_chapters_without_contradictions(icd10):
    assert len(icd10) == 12_522
    assert {row["answer"] for row in icd10} == set(CHAPTERS.values())
    assert len({row["prompt"].casefold() for row in icd10}) == len(icd10)


def test_general_sets_are_complete_and_their_gold_is_a_choice():
    for name, size, choices in (("mmlu", 1000, 4), ("social_iqa", 2224, 3), ("quartz", 3860, 2)):
        items = [json.loads(line) for line in (CACHE / "general" / f"{name}.jsonl").read_text().splitlines()]
        assert len(items) == size
        assert {len(item["choices"]) for item in items} == {choices}
        assert all(0 <= item["gold"] < choices for item in items)


def test_greedy_fp32_answers_do_not_depend_on_the_batch(icd10):
    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt="Name the ICD-10 chapter in one word.")
    prompts = [row["prompt"] for row in icd10[::1500]]
    together = generate(policy, prompts, max_new_tokens=4, batch_size=16)
    assert together == generate(policy, prompts, max_new_tokens=4, batch_size=1)
    assert any(together)


def test_trained_adapter_changes_the_answers_of_the_real_policy(icd10, tmp_path):
    rows = [
        (row_id(r["prompt"]), row_id(r["prompt"]), "bad_case", r["prompt"], r["answer"], "I do not know", 1)
        for r in icd10[::400]
    ]
    pairs = pl.DataFrame(rows, schema=empty_table("preference_pairs").schema, orient="row")
    recipe = TrainingRecipe(
        learning_rate=2e-3,
        beta=0.1,
        nll_weight=1.0,
        reference="previous",
        lora_rank=8,
        lora_alpha=16,
        batch_size=4,
        epochs=1,
        warmup_steps=0,
        max_length=256,
        seed=17,
        dtype="bfloat16",
        device="cpu",
    )
    log = train_adapter(CACHE / "policy", None, pairs, "One word.", recipe, tmp_path)
    assert log["loss"].tail(3).mean() < log["loss"][0] / 2
    labels = {label.casefold() for label in CHAPTERS.values()}

    def answers_that_are_labels(adapter):
        policy = load_policy(CACHE / "policy", adapter, system_prompt="One word.")
        answers = generate(policy, pairs["prompt"].to_list(), max_new_tokens=4, batch_size=32)
        return sum(answer.casefold() in labels for answer in answers)

    assert answers_that_are_labels(tmp_path) >= answers_that_are_labels(None) + 5
