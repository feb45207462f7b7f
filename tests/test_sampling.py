"""Answers at a temperature: drawn by their probability, and the same from the same seed in whatever company."""

import pytest

from resources.model.policy import encode, load_policy
from resources.model.sampling import point, sample
from resources.store.rows import collect
from tests import tiny


@pytest.fixture(scope="module")
def policy(talker):
    return load_policy(talker, dtype="float32")


PROMPTS = [f"Colour {'of many things ' * (n % 5)}number {n}?" for n in range(40)]


def sampled(policy, prompts, seeds=None, temperature=1.0, batch_tokens=1024):
    answers = sample(
        policy, prompts, seeds=seeds or prompts, temperature=temperature, max_new_tokens=6, batch_tokens=batch_tokens
    )
    return collect(len(prompts), answers)


def test_sampled_answer_depends_on_its_prompt_and_seed_alone(policy):
    together = sampled(policy, PROMPTS)
    assert together == sampled(policy, PROMPTS)
    assert together[::-3] == sampled(policy, PROMPTS[::-3], batch_tokens=160)
    assert together[7:8] == sampled(policy, PROMPTS[7:8], batch_tokens=64)
    other_seeds = sampled(policy, PROMPTS, seeds=[f"{prompt} again" for prompt in PROMPTS])
    assert sum(one != other for one, other in zip(together, other_seeds, strict=True)) > 20


def test_sampled_in_bfloat16_does_not_depend_on_what_else_is_asked(talker):
    policy = load_policy(talker, dtype="bfloat16")
    together = sampled(policy, PROMPTS, batch_tokens=256)
    assert together[::-3] == sampled(policy, PROMPTS[::-3], batch_tokens=256)


def test_low_temperature_is_greedy(policy):
    greedy = tiny.answers(policy, PROMPTS, max_new_tokens=6, batch_tokens=1024)
    assert sampled(policy, PROMPTS, temperature=1e-6) == greedy


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_tokens_are_drawn_by_their_probability_at_this_temperature(policy, talker, temperature):
    import torch
    from transformers import AutoModelForCausalLM

    count = 3000
    answers = sample(
        policy, ["Colour?"] * count, seeds=[str(n) for n in range(count)], temperature=temperature, max_new_tokens=1,
        batch_tokens=1024,
    )  # fmt: skip
    drawn = collect(count, answers)
    with torch.no_grad():
        asked = torch.tensor([encode(policy, "Colour?")])
        logits = AutoModelForCausalLM.from_pretrained(talker)(asked).logits[0, -1].double()
    chances = (logits / temperature).softmax(-1)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        chance = chances[policy.tokenizer.convert_tokens_to_ids(letter)].item()
        assert drawn.count(letter) / count == pytest.approx(chance, abs=4 * (chance / count) ** 0.5 + 1e-3)


def test_each_token_of_an_answer_has_a_draw_of_its_own(policy):
    # So hot that every token is as likely: with one draw for all, an answer would repeat one.
    answers = sampled(policy, PROMPTS, temperature=1e9)
    assert sum(len(set(answer)) > 1 for answer in answers) > 0.7 * len(answers)


def test_points_are_spread_evenly_below_one():
    points = sorted(point("seed", position) for position in range(2000))
    assert 0 <= points[0] < 0.01 < 0.99 < points[-1] < 1
    assert points[1000] == pytest.approx(0.5, abs=0.05)
