"""Answers and scores go on in smaller passes where one does not fit into memory, and are what they would have been."""

import pytest
import torch

from resources.model.no_room import TooLittleMemory, out_of_memory, set_tell
from resources.model.packing import set_shape_free
from resources.model.policy import load_policy
from resources.model.sampling import sample
from resources.model.scoring import Question
from resources.store.rows import collect
from tests import tiny

QUESTIONS = [f"Question {n}? " + "so " * (n * 7 % 23) for n in range(40)]


class Device:
    """Refuses passes of more tokens than it has room for; `refused` and `made` are their sizes."""

    def __init__(self, model, room):
        self.room, self.refused, self.made = room, [], []
        whole = model.forward

        def forward(*arguments, input_ids, **named):
            if input_ids.shape[1] > self.room:
                self.refused.append(input_ids.shape[1])
                raise RuntimeError(
                    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 GB"
                )
            self.made.append(input_ids.shape[1])
            return whole(*arguments, input_ids=input_ids, **named)

        model.forward = forward


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    return tiny.make_talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture
def opened(talker):
    """A policy and what it says of its memory."""
    policy, said = load_policy(talker, dtype="float32", path="packed"), []
    set_tell(policy.model, said.append)
    return policy, said


def asked():
    return {"max_new_tokens": 6, "batch_tokens": 512}


def scored(count=30):
    return [Question([*range(5, 12 + n)], ([n % 9 + 5] * (1 + n % 5), [7, 8])) for n in range(count)]


def bits(policy, prompts):
    """All logits of every answer, exactly."""
    from resources.model.exactness import bits_of

    return bits_of(policy, prompts, range(len(prompts)), 512)


def test_answers_have_the_same_bits_after_a_pass_that_did_not_fit(opened, talker):
    policy, said = opened
    whole = load_policy(talker, dtype="float32", path="packed")
    wanted, exactly = tiny.answers(whole, QUESTIONS, **asked()), bits(whole, QUESTIONS)
    device = Device(policy.model, 150)
    assert tiny.answers(policy, QUESTIONS, **asked()) == wanted
    assert device.refused
    assert max(device.made) <= 150
    assert said
    assert all("does not fit into memory" in line and "last bits" not in line for line in said)
    device.room = 100
    assert bits(policy, QUESTIONS) == exactly


def test_answers_in_the_making_are_begun_anew_where_memory_runs_out_later(opened, talker):
    policy, _ = opened
    wanted = tiny.answers(load_policy(talker, dtype="float32", path="packed"), QUESTIONS, **asked())
    device = Device(policy.model, 10_000)
    whole, count = policy.model.forward, 0

    def full_at_the_fourth(*arguments, **named):
        nonlocal count
        count += 1
        device.room = 0 if count == 4 else 10_000
        return whole(*arguments, **named)

    policy.model.forward = full_at_the_fourth
    assert tiny.answers(policy, QUESTIONS, **asked()) == wanted
    assert len(device.refused) == 1
    assert max(device.made[:3]) > max(device.made[3:]) == 256


def test_sampled_answers_are_the_same_too(opened, talker):
    policy, _ = opened

    def sampled(policy):
        seeds = [f"s{n}" for n in range(len(QUESTIONS))]
        return collect(len(QUESTIONS), sample(policy, QUESTIONS, seeds=seeds, temperature=1.0, **asked()))

    wanted = sampled(load_policy(talker, dtype="float32", path="packed"))
    device = Device(policy.model, 120)
    assert sampled(policy) == wanted
    assert device.refused


def test_scores_have_the_same_bits_and_what_fits_is_remembered(opened, talker):
    policy, said = opened
    wanted = tiny.scores(load_policy(talker, dtype="float32", path="packed").model, scored(), batch_tokens=512)
    device = Device(policy.model, 100)
    assert tiny.scores(policy.model, scored(), batch_tokens=512) == wanted
    assert max(device.made) <= 100
    refused = len(device.refused)
    assert len(said) == refused > 0
    assert tiny.scores(policy.model, scored(), batch_tokens=512) == wanted
    assert len(device.refused) == refused, "the second time passes are small from the start"


def test_passes_of_one_size_become_smaller_ones_of_one_size_and_that_bits_may_differ_is_said(opened):
    policy, said = opened
    set_shape_free(policy.model, False)
    wanted = tiny.scores(policy.model, scored(), batch_tokens=512)
    device = Device(policy.model, 140)
    found = tiny.scores(policy.model, scored(), batch_tokens=512)
    assert [one[0] for its in found for one in its] == pytest.approx(
        [one[0] for its in wanted for one in its], abs=1e-4
    )
    assert device.refused == [512, 256]
    assert set(device.made) == {128}
    assert all("policy.batch_tokens: " in line and "last bits" in line for line in said)
    assert tiny.answers(policy, QUESTIONS[:6], **asked())
    assert max(device.made) == 128


def test_a_text_that_does_not_fit_alone_ends_it_with_what_to_change(opened):
    policy, _ = opened
    Device(policy.model, 20)
    with pytest.raises(TooLittleMemory, match=r"scoring a text of \d+ tokens alone .*tried to allocate 8 GB"):
        tiny.scores(policy.model, scored(), batch_tokens=512)
    with pytest.raises(TooLittleMemory, match=r"a question of \d+ tokens alone .*max_new_tokens"):
        tiny.answers(policy, QUESTIONS, **asked())


def test_only_what_says_so_is_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError) as found:
        torch.empty(10**16)
    assert out_of_memory(found.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))
