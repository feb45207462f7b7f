"""Answers equal transformers' own greedy ones, one prompt at a time, whatever the schedule."""

from datetime import datetime

import pytest

from resources.model.generation import generate
from resources.model.lm_eval_tasks import evaluate, load_task
from resources.model.policy import load_policy
from resources.model.prompts import DAY, encode, written
from resources.model.scoring import Question
from tests import tiny

pytestmark = pytest.mark.slow("model")


@pytest.fixture(scope="module")
def prompts():
    return [f"Colour {'of many things ' * (n % 5)}number {n}?" for n in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.make_policy(tmp_path_factory.mktemp("lively") / "policy", spread=0.3)


@pytest.fixture(scope="module")
def policy(folder):
    return load_policy(folder, dtype="float32", system_prompt="Be brief.")


@pytest.fixture(scope="module")
def theirs(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def one_by_one(theirs, texts, most, plain=False):
    model, tokenizer = theirs
    said = []
    for text in texts:
        asked = tokenizer(text, return_tensors="pt", add_special_tokens=plain)
        ids = model.generate(**asked, max_new_tokens=most, do_sample=False)[0, asked["input_ids"].shape[1] :]
        said.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return said


def chat(theirs, prompt):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    return theirs[1].apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


# 64 tokens: fewer than a prompt here, so each has a pass of its own; 160: a few at a time; 2048: all at once.
@pytest.mark.parametrize("batch_tokens", [64, 160, 2048])
def test_answers_equal_those_of_transformers_one_by_one(batch_tokens, policy, theirs, prompts):
    ours = tiny.answers(policy, prompts, max_new_tokens=9, batch_tokens=batch_tokens)
    assert ours == one_by_one(theirs, [chat(theirs, prompt) for prompt in prompts], 9)
    assert len(set(ours)) > 5


def test_a_row_stops_at_its_own_end_token_and_gives_its_place_to_the_next(policy, theirs, prompts, monkeypatch):
    texts = [chat(theirs, prompt) for prompt in prompts]
    model, tokenizer = theirs
    asked = tokenizer(texts[0], return_tensors="pt", add_special_tokens=False)
    third = model.generate(**asked, max_new_tokens=3, do_sample=False)[0, -1].item()
    for config in (policy.model.generation_config, model.generation_config):
        monkeypatch.setattr(config, "eos_token_id", [third])
    ours = tiny.answers(policy, prompts, max_new_tokens=40, batch_tokens=160)
    assert ours == one_by_one(theirs, texts, 40)
    lengths = {len(answer) for answer in ours}
    assert len(lengths) > 1


def test_policy_without_chat_template_reads_the_plain_prompt(policy, theirs, prompts, monkeypatch):
    monkeypatch.setattr(policy.tokenizer, "chat_template", None)
    ours = tiny.answers(policy, prompts[:6], max_new_tokens=5, batch_tokens=256)
    assert ours == one_by_one(theirs, [f"Be brief.\n{prompt}\n" for prompt in prompts[:6]], 5, plain=True)


def test_template_that_tells_the_day_reads_a_question_alike_on_every_day(policy, monkeypatch):
    said = "{{ strftime_now('%d %b %Y') }}: {{ messages[-1].content }}"
    monkeypatch.setattr(policy.tokenizer, "chat_template", said)
    read = []
    for day in (1, 2):

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None, day=day):
                return cls(2026, 12, day)

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
        read.append(policy.tokenizer.decode(encode(policy, "Which day is it?")))
    assert read == ["26 Jul 2024: Which day is it?"] * 2


@pytest.mark.parametrize("begins", ["", "\n", "  ", "    {% if true %}\n", "  {# a comment #}\n", "{{ 'A' }}\n"])
def test_template_that_tells_the_day_is_written_to_the_letter(policy, monkeypatch, begins):
    plain = f"{begins}{{{{ '26 Jul 2024' }}}}: {{{{ messages[-1].content }}}}{'{% endif %}' if 'if' in begins else ''}"
    turns = [{"role": "user", "content": "q"}]
    monkeypatch.setattr(policy.tokenizer, "chat_template", plain)
    theirs = policy.tokenizer.apply_chat_template(turns, tokenize=False)
    dated = plain.replace("'26 Jul 2024'", "strftime_now('%d %b %Y')")
    monkeypatch.setattr(policy.tokenizer, "chat_template", dated)
    assert written(policy.tokenizer, turns, asks=False) == theirs


@pytest.mark.parametrize("asked", ["%F %T", "%D", "%-d %B %Y, %A", "%Y-%m-%d %H:%M:%S %p", "%j %U %u %%", "%c"])
def test_template_may_ask_for_the_day_in_any_form(policy, monkeypatch, asked):
    monkeypatch.setattr(policy.tokenizer, "chat_template", f"{{{{ strftime_now('{asked}') }}}}")
    assert written(policy.tokenizer, [{"role": "user", "content": "q"}], asks=False) == DAY.strftime(asked)


def test_prompts_that_do_not_begin_like_the_others_are_answered_too(policy, theirs, monkeypatch):
    template = "{{ 'Odd: ' if 'odd' in messages[-1].content else 'Even: ' }}{{ messages[-1].content }}|"
    monkeypatch.setattr(policy.tokenizer, "chat_template", template)
    asked = ["an odd one", "one", "the odd other", "two"]
    texts = [f"{'Odd: ' if 'odd' in prompt else 'Even: '}{prompt}|" for prompt in asked]
    ours = tiny.answers(policy, asked, max_new_tokens=6, batch_tokens=256)
    assert ours == one_by_one(theirs, texts, 6)


def test_answers_are_handed_over_while_others_are_still_in_the_making(policy, prompts):
    answers = tiny.answers(policy, prompts * 4, max_new_tokens=4, batch_tokens=256)
    handed = [
        dict(zip(places, some, strict=True))
        for places, some in generate(policy, prompts * 4, max_new_tokens=4, batch_tokens=256)
    ]
    assert len(handed) > 1
    assert {place: answer for part in handed for place, answer in part.items()} == dict(enumerate(answers))
    assert sum(map(len, handed)) == len(answers)


def test_no_prompts_no_answers(policy):
    assert tiny.answers(policy, [], max_new_tokens=4, batch_tokens=256) == []


@pytest.mark.parametrize("batch_tokens", [128, 512])
def test_bfloat16_answers_do_not_depend_on_what_else_is_asked(batch_tokens, folder, prompts):
    policy = load_policy(folder, dtype="bfloat16", system_prompt="Be brief.")
    together = tiny.answers(policy, prompts * 3, max_new_tokens=9, batch_tokens=batch_tokens)
    some = tiny.answers(policy, prompts[::-3], max_new_tokens=9, batch_tokens=batch_tokens)
    assert some == together[: len(prompts)][::-3]


def test_scores_of_answers_equal_those_of_a_pass_of_their_own(policy, theirs):
    import torch

    model, tokenizer = theirs
    texts = [(f"Number {n}: ", ["one", "two three", "f" * (n % 4 + 1)]) for n in range(12)]
    ids = [(tokenizer(c)["input_ids"], tuple(tokenizer(a)["input_ids"] for a in answers)) for c, answers in texts]
    prefix = tokenizer("Number ")["input_ids"]
    found = tiny.scores(policy.model, [Question(*pair) for pair in ids], batch_tokens=256, prefix=prefix)
    for (context, answers), scores in zip(ids, found, strict=True):
        for answer, (log_prob, greedy) in zip(answers, scores, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([context + answer])).logits[0, len(context) - 1 : -1].log_softmax(-1)
            alone = logits[range(len(answer)), answer].sum().item()
            assert log_prob == pytest.approx(alone, abs=1e-4)
            assert greedy == (logits.argmax(-1).tolist() == answer)


def test_task_items_have_the_log_likelihoods_of_lm_evals_own_model(folder, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = load_task(tiny.make_task(tmp_path / "tasks") / "colours.yaml", None, tmp_path)
    ours = evaluate(load_policy(folder, dtype="float32"), task, [0, 1, 2, 3, 4], 256)
    model = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder),
        batch_size=2,
    )  # fmt: skip
    found = simple_evaluate(model=model, tasks=[task.config], task_manager=TaskManager(include_defaults=False))
    theirs = found["samples"]["colours"]
    assert len(ours) == len(theirs) == 5
    for one, other in zip(ours, theirs, strict=True):
        for (mine, my_greedy), (its, its_greedy) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert mine == pytest.approx(its, abs=1e-3)
            assert my_greedy == its_greedy
        assert one["acc_norm"] == other["acc_norm"]


def test_plain_answers_are_those_of_packed_passes_and_stop_at_the_same_tokens(folder, policy, prompts):
    plain = load_policy(folder, dtype="float32", system_prompt="Be brief.", path="plain")
    packed = tiny.answers(policy, prompts[:8], max_new_tokens=9, batch_tokens=256)
    assert tiny.answers(plain, prompts[:8], max_new_tokens=9, batch_tokens=256) == packed
    assert len(set(packed)) > 2


def test_plain_answers_ignore_what_else_the_model_configures(folder, prompts):
    plain = load_policy(folder, dtype="float32", path="plain")
    usual = tiny.answers(plain, prompts[:4], max_new_tokens=6, batch_tokens=256)
    plain.model.generation_config.update(repetition_penalty=9.0, do_sample=True, min_new_tokens=6, bad_words_ids=[[5]])
    assert tiny.answers(plain, prompts[:4], max_new_tokens=6, batch_tokens=256) == usual
    assert plain.model.generation_config.repetition_penalty == 9.0
