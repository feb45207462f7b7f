"""The real embedded models: what `make demo` stands on."""

import hashlib
import json
import os
import subprocess
import sys

import polars as pl
import pytest
import torch

from apt_assets.method.splits import row_id
from apt_assets.settings.asking import native_dtype
from apt_assets.settings.experiment import REPOSITORY
from resources.demo.downloads import CHAPTERS, prepare
from resources.model import generation
from resources.model.policy import load_policy
from resources.model.scoring import Question
from resources.training.trainer import TrainingRecipe, train_adapter
from schemas.tables import PreferencePairs
from tests import tiny

pytestmark = pytest.mark.real

CACHE = REPOSITORY / ".apt" / "cache"


@pytest.fixture(scope="module")
def icd10():
    prepare(CACHE)
    return [json.loads(line) for line in (CACHE / "icd10.jsonl").read_text().splitlines()]


def test_domain_has_twelve_thousand_terms_of_21_chapters_without_contradictions(icd10):
    assert len(icd10) == 12_522
    assert {row["answer"] for row in icd10} == set(CHAPTERS.values())
    assert len({row["prompt"].casefold() for row in icd10}) == len(icd10)


def test_answer_depends_on_its_prompt_alone_to_the_last_bit(icd10, monkeypatch):
    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt="Name the ICD-10 chapter in one word.")
    prompts = [row["prompt"] for row in icd10[::400]]
    seen: set[bytes] = set()
    original = generation.Engine.forward

    def forward_and_keep(*arguments):
        """The logits of every token of every answer, by their bits."""
        logits = original(*arguments)
        seen.update(hashlib.sha256(row.numpy().tobytes()).digest() for row in logits)
        return logits

    monkeypatch.setattr(generation.Engine, "forward", forward_and_keep)

    def ask(asked, batch_tokens):
        seen.clear()
        answers = tiny.answers(policy, asked, max_new_tokens=4, batch_tokens=batch_tokens)
        return answers, set(seen)

    together, bits = ask(prompts, 1024)
    assert len(bits) > 2 * len(prompts)
    backwards, reversed_bits = ask(prompts[::-1], 256)
    assert backwards[::-1] == together
    assert reversed_bits == bits
    some, fewer_bits = ask(prompts[3::4], 1024)
    assert some == together[3::4]
    assert fewer_bits < bits
    alone, its_bits = ask(prompts[:1], 1024)
    assert alone == together[:1]
    assert its_bits < bits


def test_scores_depend_on_their_question_alone_to_the_last_bit(icd10):
    policy = load_policy(CACHE / "policy", dtype="float32")
    tokens = policy.tokenizer
    choices = [tokens(f" {label}")["input_ids"] for label in sorted(CHAPTERS.values())[:4]]
    questions = [Question(tokens(row["prompt"])["input_ids"], tuple(choices)) for row in icd10[::600]]
    together = tiny.scores(policy.model, questions, batch_tokens=1024)
    assert tiny.scores(policy.model, questions[::-1], batch_tokens=300)[::-1] == together
    assert tiny.scores(policy.model, questions[5:6], batch_tokens=1024) == together[5:6]


EVERY_NUMBER_OF_ROWS = """
import json
from dataclasses import asdict
from resources.model.exactness import exactness
from resources.model.policy import load_policy
print(json.dumps(asdict(exactness(load_policy({folder!r}, dtype="float32", path="packed"), 1024))))
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "2"},
        {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2"},
    ],
    ids=["two threads", "two threads, AVX2"],
)
def test_every_matrix_gives_a_row_the_same_bits_for_every_number_of_rows(icd10, environment):
    if environment.get("ATEN_CPU_CAPABILITY", "").upper() == torch.backends.cpu.get_cpu_capability():
        pytest.skip("what this processor does of itself, which is the other case")
    # A process of its own: threads and kernels are settled when torch first multiplies, and conftest asks for one.
    code = EVERY_NUMBER_OF_ROWS.format(folder=str(CACHE / "policy"))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["threads"] == int(environment["OMP_NUM_THREADS"])
    assert found["exact"], found["reason"]
    assert found["shape_free"], found["reason"]
    # Four shapes with 63 numbers of rows, and the head with 15: all that a pass of 1024 tokens can have.
    assert "5 shapes of matrices with 267 numbers of rows" in found["reason"]


def test_trained_adapter_changes_the_answers_of_the_real_policy(icd10, tmp_path):
    rows = [
        (row_id(r["prompt"]), row_id(r["prompt"]), "bad_case", r["prompt"], r["answer"], "I do not know", 1, 1.0)
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
        batch_tokens=1024,
        seed=17,
        dtype=native_dtype("cpu"),
        device="cpu",
    )
    log = train_adapter(CACHE / "policy", None, pairs, "One word.", recipe, tmp_path)
    assert log["loss"].tail(3).mean() < log["loss"][0] / 2
    labels = {label.casefold() for label in CHAPTERS.values()}

    def answers_that_are_labels(adapter):
        policy = load_policy(CACHE / "policy", adapter, dtype=native_dtype("cpu"), system_prompt="One word.")
        answers = tiny.answers(policy, pairs["prompt"].to_list(), max_new_tokens=4, batch_tokens=1024)
        return sum(answer.casefold() in labels for answer in answers)

    assert answers_that_are_labels(tmp_path) >= answers_that_are_labels(None) + 5


def test_real_policy_runs_in_packed_passes_in_each_dtype_of_the_processor(icd10):
    from resources.model.agreement import run_path
    from resources.training.agreement import LOOK_AT_A_STEP

    # bfloat16 without its instructions takes three minutes here, and is what no default chooses.
    for dtype in sorted({"float32", native_dtype("cpu")}):
        found = run_path(
            lambda path, dtype=dtype: load_policy(CACHE / "policy", dtype=dtype, path=path), LOOK_AT_A_STEP
        )
        assert found == ("packed", "")
