"""Pairs that count less than others are trained as if each one's loss were multiplied by its weight."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from resources.model.policy import load_policy
from resources.training.examples import answer_turn, tokenise
from resources.training.trainer import train_adapter
from tests.test_objectives import rows_to_learn
from tests.test_parts import CASES
from tests.test_trainer import RECIPE

pytestmark = pytest.mark.slow("loop")

SYSTEM = "Be brief."
WEIGHTS = [1.0, 0.3, 0.0, 0.75, 0.1, 1.0, 0.5, 0.9]


def rows(weights=None):
    found = rows_to_learn(8, rejected="something else")
    return found.drop("weight") if weights is None else found.with_columns(weight=pl.Series(weights))


def train(tiny_folder, out, pairs, previous=None, **changes):
    """(the log, the adapter's tensors) of three steps, each of all eight pairs."""
    recipe = replace(RECIPE, **{"batch_size": 8, "epochs": 3, **changes})
    out.mkdir()
    log = train_adapter(tiny_folder / "policy", previous, pairs, SYSTEM, recipe, out)
    return log, load_file(out / "adapter_model.safetensors")


def log_probs(policy, pairs):
    """[of chosen, of rejected] of each pair, a tensor of its tokens' log-probabilities each."""
    turn, found = answer_turn(policy), []
    for prompt, *answers in pairs.select("prompt", "chosen", "rejected").iter_rows():
        context, ids = tokenise(policy, turn, prompt, answers)
        for its in ids:
            logits = policy.model(torch.tensor([context + its])).logits[0, len(context) - 1 : -1]
            found.append(logits.float().log_softmax(-1)[range(len(its)), its])
    return list(zip(found[::2], found[1::2], strict=True))


def losses(now, before, weights, *, objective="dpo", loss="sigmoid", beta=RECIPE.beta, **others):
    """The loss as the module's docstring has it, pair by pair in so many words."""
    tokens, total = sum(len(chosen) for chosen, _ in now), 0.0
    for (chosen, rejected), (chosen_before, rejected_before), weight in zip(now, before, weights, strict=True):
        total = total - weight * chosen.sum() / tokens
        if objective == "dpo":
            ratios = [(chosen - chosen_before).sum(), (rejected - rejected_before).sum()]
            if loss == "sigmoid_norm":
                ratios = [ratios[0] / len(chosen), ratios[1] / len(rejected)]
            of_pair = -torch.nn.functional.logsigmoid(beta * (ratios[0] - ratios[1]))
            total = total + weight * of_pair / len(now)
    return total


def plainly(tiny_folder, previous, pairs, **changes):
    """([(loss without weights, norm of the gradient) of each step], the adapter's tensors), by transformers and peft
    alone."""
    from peft import PeftModel, get_peft_model_state_dict

    policy = load_policy(tiny_folder / "policy", dtype="float32", system_prompt=SYSTEM, path="plain")
    policy = replace(policy, model=PeftModel.from_pretrained(policy.model, str(previous), is_trainable=True))
    policy.model.train()
    with torch.no_grad():
        before = log_probs(policy, pairs)
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    optimiser, seen = torch.optim.AdamW(trained, lr=RECIPE.learning_rate, weight_decay=0.0), []
    for step in range(3):
        optimiser.param_groups[0]["lr"] = RECIPE.learning_rate * (3 - step) / 3
        now, weights = log_probs(policy, pairs), pairs["weight"].to_list()
        losses(now, before, weights, **changes).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        with torch.no_grad():
            seen.append((float(losses(now, before, [1.0] * len(weights), **changes)), float(norm)))
        optimiser.step()
        optimiser.zero_grad()
    return seen, get_peft_model_state_dict(policy.model)


def apart(one, other):
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_weighted_pairs_train_what_a_weighted_sum_of_their_losses_does(tiny_folder, tmp_path, changes):
    train(tiny_folder, tmp_path / "previous", rows(), epochs=1)
    previous = tmp_path / "previous"
    log, adapter = train(tiny_folder, tmp_path / "ours", rows(WEIGHTS), previous, **changes)
    expected, plain = plainly(tiny_folder, previous, rows(WEIGHTS), **changes)
    assert log.select("loss", "grad_norm").rows() == [pytest.approx(step, rel=1e-4, abs=1e-6) for step in expected]
    _, alike = train(tiny_folder, tmp_path / "alike", rows(), previous, **changes)
    # Adam makes of a gradient near 0, whose sign is noise, a step like any other.
    assert apart(adapter, plain) < 1e-2 * apart(adapter, alike)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_weights_of_one_train_the_same_bits_as_pairs_without_weights(tiny_folder, tmp_path, changes):
    log, adapter = train(tiny_folder, tmp_path / "without", rows(), **changes)
    other, weighed = train(tiny_folder, tmp_path / "with", rows([1.0] * 8), **changes)
    assert log.equals(other)
    assert all(adapter[key].equal(weighed[key]) for key in adapter)


def test_pairs_of_weight_zero_train_nothing(tiny_folder, tmp_path):
    log, _ = train(tiny_folder, tmp_path / "none", rows([0.0] * 8))
    assert log["grad_norm"].to_list() == [0.0] * 3
    assert log["loss"].max() == pytest.approx(log["loss"].min(), abs=1e-5), "other batches may be rounded otherwise"
