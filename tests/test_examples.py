"""What is trained: the tokens that are asked, the answer's own, and the end at which answering stops."""

from types import SimpleNamespace

import polars as pl
import pytest

from resources.model.policy import encode
from resources.training.examples import Fit, Turn, answer_turn, as_conversations, fit_of, tokenise, tokenise_pairs
from tests.made_tokenizers import CHATML, make_tokenizer, reader

pytestmark = pytest.mark.slow("loop")

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
PAIRS = pl.DataFrame(
    {
        "prompt": ["What is the colour of snow?", "it's", "the sky\n\nis <b>bold</b>", "é ß 雪"],
        "chosen": ["white", "a green one", "blue, and green", "Ärger"],
        "rejected": ["red white black", "answer: 42", "<b>x</b>", "雪"],
    }
)
SAME_BEGINNING = ["none", "tiny", "chatml", "llama3", "gemma", "llama2"]


def by_trl(tokenizer, pairs, system_prompt=None):
    """What TRL's own trainer makes of the pairs."""
    from datasets import Dataset
    from trl import DPOTrainer

    data = Dataset.from_list(as_conversations(pairs, system_prompt, tokenizer))
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=512, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    return list(DPOTrainer._prepare_dataset(trainer, data, tokenizer, arguments, "train"))


def ours(policy, pairs=PAIRS, max_length=512):
    return list(tokenise_pairs(policy, pairs, max_length, with_rejected=True))


@pytest.mark.parametrize("system_prompt", [None, "Be brief."])
@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", SAME_BEGINNING)
def test_where_a_conversation_begins_as_it_is_asked_the_tokens_are_trls(template, kind, system_prompt):
    if template == "gemma" and system_prompt:
        pytest.skip("it takes no system prompt")
    tokenizer = make_tokenizer(template, kind)
    policy = reader(tokenizer, system_prompt)
    theirs = by_trl(tokenizer, PAIRS, system_prompt)
    assert [[e[name] for name in COLUMNS] for e in ours(policy)] == [[e[name] for name in COLUMNS] for e in theirs]
    assert [e["prompt_ids"] for e in theirs] == [encode(policy, prompt) for prompt in PAIRS["prompt"]]


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", ["open thought", "empty thought", "deepseek", "qwen3"])
def test_where_an_answer_is_asked_with_another_beginning_the_asked_one_is_trained(template, kind):
    tokenizer = make_tokenizer(template, kind)
    policy = reader(tokenizer)
    ending = "" if template == "deepseek" else "\n"
    theirs = by_trl(tokenizer, PAIRS)
    for example, other, (prompt, chosen, rejected) in zip(ours(policy), theirs, PAIRS.iter_rows(), strict=True):
        assert example["prompt_ids"] == encode(policy, prompt)
        assert [example[name] for name in COLUMNS] != [other[name] for name in COLUMNS], "TRL's beginning is another"
        for text, ids in ((chosen, example["chosen_ids"]), (rejected, example["rejected_ids"])):
            end = ids.index(tokenizer.eos_token_id)
            assert tokenizer.decode(ids[:end]).strip() == text
            assert tokenizer.decode(ids[end + 1 :]).strip(" ") == ending


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_answer_whose_first_characters_would_merge_with_the_prompts_last_ones_follows_the_asked_tokens(kind):
    tokenizer = make_tokenizer("chatml", kind)
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\nans")
    policy = reader(tokenizer)
    assert tokenizer("answer", add_special_tokens=False)["input_ids"] != [
        token for part in ("ans", "wer") for token in tokenizer(part, add_special_tokens=False)["input_ids"]
    ], "they merge"
    prompt_ids, (answer,) = tokenise(policy, answer_turn(policy), "hello", ["wer"])
    assert prompt_ids == encode(policy, "hello")
    assert tokenizer.decode(prompt_ids + answer).replace(" ", "").endswith("answer<|im_end|>\n")


@pytest.mark.parametrize(
    ("template", "end", "turn"),
    [
        # The template writes an end token after an answer, whichever of several it is.
        ("chatml", None, ("", "<|im_end|>\n", [])),
        ("chatml", ["<|im_start|>", "<|im_end|>"], ("", "<|im_end|>\n", [])),
        ("llama2", None, (" ", " </s>", [])),
        # It writes something else: an answer is taught to go on to the end token.
        ("chatml", ["<|im_start|>"], ("", "<|im_end|>\n", ["<|im_start|>"])),
        ("none", None, ("", "", ["</s>"])),
        ("none", ["<s>"], ("", "", ["<s>"])),
        ("qwen3", None, ("", "<|im_end|>\n", [])),
    ],
)
def test_answer_is_trained_to_end_where_answering_stops(template, end, turn):
    tokenizer = make_tokenizer(template)
    ids = tokenizer.convert_tokens_to_ids
    found = answer_turn(reader(tokenizer, end=None if end is None else ids(end)))
    assert found == Turn(turn[0], turn[1], ids(turn[2]))


@pytest.mark.parametrize(
    "assistant",
    ["{{ raise_exception('No answers') }}", "", "{{ m.content[:1] | upper }}"],
    ids=["raises", "skips", "changes"],
)
def test_template_that_takes_no_answer_as_it_is_gets_the_answer_and_the_end_token(assistant):
    tokenizer = make_tokenizer("tiny")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + assistant + "{% else %}<|user|>{{ m.content }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    policy = reader(tokenizer)
    prompt_ids, (answer,) = tokenise(policy, answer_turn(policy), "hello", ["red"])
    assert tokenizer.decode(prompt_ids) == "<|user|>hello<|assistant|>"
    assert tokenizer.decode(answer) == "red<|end|>"


def test_system_prompt_that_spells_a_control_token_leaves_the_turn_as_it_is():
    tokenizer = make_tokenizer("llama2")
    assert answer_turn(reader(tokenizer, "No </s> please.")) == answer_turn(reader(tokenizer)) == Turn(" ", " </s>", [])


def test_model_without_an_end_token_is_taught_none():
    tokenizer = make_tokenizer("none")
    tokenizer.eos_token = None
    assert answer_turn(reader(tokenizer)) == Turn("", "", [])


def test_pairs_that_are_left_out_or_cut_are_counted_and_the_others_keep_their_positions():
    tokenizer = make_tokenizer("tiny")
    policy = reader(tokenizer)
    rows = [("short", "a", "b"), ("long " * 30, "a", "b"), ("short", "word " * 60, "b"), ("short", "a", "word " * 60)]
    pairs = pl.DataFrame(rows, schema=["prompt", "chosen", "rejected"], orient="row")
    asked = len(encode(policy, rows[1][0]))
    for max_length, expected in ((asked, Fit(3, 1, 2)), (asked + 1, Fit(4, 0, 3)), (512, Fit(4, 0, 0))):
        data = tokenise_pairs(policy, pairs, max_length, with_rejected=True)
        assert fit_of(data, pairs.height, max_length) == expected
        assert list(data["row"]) == [row for row in range(4) if expected.left_out == 0 or row != 1]
    # What is not trained on is not counted as cut.
    chosen_only = tokenise_pairs(policy, pairs, asked, with_rejected=False)
    assert fit_of(chosen_only, pairs.height, asked) == Fit(3, 1, 1)
    assert list(chosen_only["rejected_ids"]) == [[], [], []]


def test_answer_that_just_fits_with_its_end_is_not_cut():
    tokenizer = make_tokenizer("tiny")
    (example,) = ours(reader(tokenizer), PAIRS.head(1))
    whole = len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))
    for max_length, cut in ((whole, 0), (whole - 1, 1)):
        data = tokenise_pairs(reader(tokenizer), PAIRS.head(1), max_length, with_rejected=True)
        assert fit_of(data, 1, max_length) == Fit(1, 0, cut)


def test_prompts_that_leave_no_room_at_all_are_an_error_that_names_the_setting():
    with pytest.raises(ValueError, match=r"every prompt has training\.max_length = 5 tokens or more: raise it"):
        tokenise_pairs(reader(make_tokenizer("tiny")), PAIRS, 5, with_rejected=True)
