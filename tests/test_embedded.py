"""The real embedded models: what `make demo` stands on."""

import json

import polars as pl
import pytest

from apt_assets.experiment import REPOSITORY, native_dtype
from apt_assets.method.splits import row_id
from resources.embedded import CHAPTERS, prepare
from resources.policy_model import generate, load_policy
from resources.trainer import TrainingRecipe, train_adapter
from schemas.tables import PreferencePairs

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


def test_answer_depends_on_its_prompt_alone_to_the_last_bit(icd10):
    import torch

    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt="Name the ICD-10 chapter in one word.")
    prompts = [row["prompt"] for row in icd10[::800]]
    logits: dict[str, torch.Tensor] = {}

    def generate_and_keep(asked):
        """Answers, and the logits that the last step of each batch saw."""
        seen = []
        handle = policy.model.get_output_embeddings().register_forward_hook(lambda m, i, out: seen.append(out[:, -1]))
        kept = []
        answers = generate(
            policy, asked, max_new_tokens=4, batch_size=8,
            on_batch=lambda rows, _: (kept.append((rows, seen[0])), seen.clear()),
        )  # fmt: skip
        handle.remove()
        for rows, first in kept:
            logits.update({asked[row]: first[place] for place, row in enumerate(rows)})
        return answers

    together = generate_and_keep(prompts)
    before = dict(logits)
    backwards = generate_and_keep(prompts[::-1])[::-1]
    assert all(torch.equal(before[prompt], logits[prompt]) for prompt in prompts)
    some = generate_and_keep(prompts[3::4])
    assert all(torch.equal(before[prompt], logits[prompt]) for prompt in prompts)
    assert together == backwards
    assert together[3::4] == some
    assert any(together)


def test_trained_adapter_changes_the_answers_of_the_real_policy(icd10, tmp_path):
    rows = [
        (row_id(r["prompt"]), row_id(r["prompt"]), "bad_case", r["prompt"], r["answer"], "I do not know", 1)
        for r in icd10[::400]
    ]
    pairs = pl.DataFrame(rows, schema=PreferencePairs.empty().schema, orient="row")
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
        dtype=native_dtype("cpu"),
        device="cpu",
    )
    log = train_adapter(CACHE / "policy", None, pairs, "One word.", recipe, tmp_path)
    assert log["loss"].tail(3).mean() < log["loss"][0] / 2
    labels = {label.casefold() for label in CHAPTERS.values()}

    def answers_that_are_labels(adapter):
        policy = load_policy(CACHE / "policy", adapter, dtype=native_dtype("cpu"), system_prompt="One word.")
        answers = generate(policy, pairs["prompt"].to_list(), max_new_tokens=4, batch_size=32)
        return sum(answer.casefold() in labels for answer in answers)

    assert answers_that_are_labels(tmp_path) >= answers_that_are_labels(None) + 5
