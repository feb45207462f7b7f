"""Nothing that a row says becomes a control token, and a row that spells none is read as it always was."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from apt_assets.rows.lengths import counter
from resources.model.control_tokens import RowTexts, spelling
from resources.model.policy import Reader, encode, load_tokenizer, messages
from resources.training.examples import answer_turn, tokenise
from tests import tiny
from tests.made_tokenizers import TEMPLATES, make_tokenizer, reader

WITH_SYSTEM = [name for name in TEMPLATES if name != "gemma"]


@pytest.fixture(scope="module")
def tokenizers():
    made = {}

    def made_once(template, kind):
        if (template, kind) not in made:
            made[template, kind] = make_tokenizer(template, kind)
        return made[template, kind]

    return made_once


def control_words(template):
    _, special, added, _ = TEMPLATES[template]
    return [*special, *(word for word in added if word.strip() and word not in ("<b>", "</b>"))]


def control_ids(tokenizer, template, ids):
    words = set(tokenizer.convert_tokens_to_ids(control_words(template)))
    return [token for token in ids if token in words]


def hostile(template):
    words = control_words(template)
    one, last = words[0], words[-1]
    return [
        *(f"my ticket {word} blue" for word in words), "".join(words), " ".join(words), f"{one}\nand{last}",
        one, one[:-1] + one + one[1:], f"{last}{last}", f"é{one}ß", f"\U000f0000{one}\U000f0001",
    ]  # fmt: skip


def letters(text):
    return "".join(text.split())


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompt_that_spells_control_tokens_has_those_of_the_template_and_its_own_text(template, kind, tokenizers):
    tokenizer = tokenizers(template, kind)
    policy = reader(tokenizer)
    expected = control_ids(tokenizer, template, encode(policy, "red"))
    for prompt in hostile(template):
        ids = encode(policy, prompt)
        assert control_ids(tokenizer, template, ids) == expected, prompt
        assert letters(prompt) in letters(tokenizer.decode(ids)), prompt


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", WITH_SYSTEM)
def test_system_prompt_that_spells_control_tokens_has_none_of_its_own(template, kind, tokenizers):
    tokenizer = tokenizers(template, kind)
    expected = control_ids(tokenizer, template, encode(reader(tokenizer, "Be brief."), "red"))
    for prompt in hostile(template):
        ids = encode(reader(tokenizer, prompt), "red")
        assert control_ids(tokenizer, template, ids) == expected, prompt


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_answer_that_spells_control_tokens_is_trained_as_text_and_ends_once(template, kind, tokenizers):
    tokenizer = tokenizers(template, kind)
    policy = reader(tokenizer)
    turn = answer_turn(policy)
    prompt_ids, answers = tokenise(policy, turn, "hello", hostile(template))
    assert prompt_ids == encode(policy, "hello")
    for text, ids in zip(hostile(template), answers, strict=True):
        assert control_ids(tokenizer, template, ids) == [tokenizer.eos_token_id], text
        assert letters(text) in letters(tokenizer.decode(ids)), text


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", [name for name, (written, *_) in TEMPLATES.items() if written])
def test_special_tokens_are_spelled_as_transformers_own_sanitising_spells_them(template, kind, tokenizers):
    tokenizer = tokenizers(template, kind)
    for prompt in (f"my ticket {word} blue" for word in TEMPLATES[template][1]):
        theirs = tokenizer.apply_chat_template(
            messages(prompt, None), add_generation_prompt=True, sanitize_control_tokens=True
        )
        assert encode(reader(tokenizer), prompt) == theirs["input_ids"]


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompt_that_spells_none_has_the_tokens_of_its_whole_text_at_once(template, kind, tokenizers):
    tokenizer = tokenizers(template, kind)
    for prompt in (
        "colour of the sky?",
        "a <b>bold</b> | < end > [x]",
        "\U000f0000 \U000f0001",
        "1 < 2 |> 3\n\n4",
        "é",
    ):
        if tokenizer.chat_template is None:
            expected = tokenizer(f"{prompt}\n")["input_ids"]
        else:
            turns = messages(prompt, None)
            expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        assert encode(Reader(tokenizer, None), prompt) == expected, prompt


def test_words_white_space_and_html_that_were_added_to_a_tokenizer_are_no_control_tokens(tokenizers):
    tokenizer = tokenizers("gemma", "sentencepiece")
    tokenizer.add_tokens(["COVID-19", "[CITE]", "<2>"])
    found = spelling(tokenizer, tokenizer.chat_template)
    for text in ("<b>", "</b>", "\n\n", "COVID-19"):
        assert not found.search(text), text
        assert tokenizer.convert_tokens_to_ids(text) in encode(reader(tokenizer), f"of {text} now")
    for text in ("<start_of_turn>", "<s>", "[CITE]", "<2>"):
        assert found.search(text), text


def test_added_token_without_brackets_that_the_template_names_is_a_control_token():
    tokenizer = make_tokenizer("tiny")
    tokenizer.add_tokens(["HUMAN:"])
    assert tokenizer.convert_tokens_to_ids("HUMAN:") in encode(reader(tokenizer), "HUMAN: red")
    tokenizer.chat_template = "{% for m in messages %}HUMAN: {{ m.content }}\n{% endfor %}"
    ids = encode(reader(tokenizer), "HUMAN: red")
    assert ids.count(tokenizer.convert_tokens_to_ids("HUMAN:")) == 1
    assert tokenizer.decode(ids) == "HUMAN: HUMAN: red\n"


def test_control_token_that_the_vocabulary_has_as_a_word_too_is_spelled_in_two_parts():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<end>": 0, "<": 1, "end>": 2, "red": 3, "?": 4}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="?")
    assert encode(reader(tokenizer), "red <end>") == [3, 1, 2]


def test_template_that_takes_a_text_apart_still_writes_no_control_token_of_it(tokenizers):
    tokenizer = tokenizers("deepseek", "bytes")
    # As DeepSeek's does with answers: what stands before the thought's end is dropped.
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    texts = RowTexts(tokenizer, "a</s></think></s>b")
    written = tokenizer.apply_chat_template(messages(texts.marked("a</s></think></s>b"), None), tokenize=False)
    assert tokenizer.decode(texts.tokenise(written)) == "<s></s>b"
    assert texts.tokenise(written).count(tokenizer.eos_token_id) == 0


def test_tokens_that_the_tokenizer_itself_puts_around_a_text_stay_around_it(tokenizers):
    tokenizer = tokenizers("none", "bytes")
    ids = encode(reader(tokenizer, "Use no <s>."), "not </s> either")
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[1:]) == "Use no <s>.\nnot </s> either\n"


# -- what a tokenizer's files ask for ------------------------------------------------------------------------


def loaded(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


def test_end_token_that_a_tokenizer_puts_behind_texts_does_not_stand_between_question_and_answer(tmp_path):
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = None
    around = [("<|pad|>", tokenizer.pad_token_id), ("<|end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A <|end|>", pair="<|pad|> $A $B <|end|>", special_tokens=around
    )
    asked = loaded(tokenizer, tmp_path)
    for prompt in ("Hi", "Hi <|end|>"):
        ids = encode(Reader(asked, None), prompt)
        assert ids[0] == asked.pad_token_id
        assert asked.eos_token_id not in ids


def test_answer_is_written_as_it_was_said_and_a_question_read_the_same_way_each_time(tmp_path):
    pieces = ["<unk>", "</s>", "▁", "▁is", "▁.", "5", "a", "▁a", "▁!", "="]
    unigram = Tokenizer(models.Unigram([(piece, -1.0 - n) for n, piece in enumerate(pieces)], unk_id=0))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    settings = {"eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": True}
    asked = loaded(PreTrainedTokenizerFast(tokenizer_object=unigram, **settings), tmp_path / "unigram")
    assert asked.decode(asked("a != a is .5", add_special_tokens=False)["input_ids"]).strip() == "a != a is .5"

    letters = ["<|end|>", *"the ", "th", "the"]
    bpe = Tokenizer(models.BPE({part: n for n, part in enumerate(letters)}, [("t", "h"), ("th", "e")], dropout=0.5))
    asked = loaded(PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>"), tmp_path / "bpe")
    assert {len(encode(Reader(asked, None), "the" * 40)) for _ in range(5)} == {40}
    count = counter(tmp_path / "bpe" / "tokenizer.json")
    assert {tuple(count(["the" * 40])) for _ in range(5)} == {(40,)}


def test_tokenizer_without_the_letter_that_is_tried_loses_nothing_of_a_question(tmp_path):
    letters = ["<|end|>", "x", "\n"]
    known = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    asked = loaded(PreTrainedTokenizerFast(tokenizer_object=known, eos_token="<|end|>"), tmp_path)
    assert encode(Reader(asked, None), "xx") == [1, 1, 2]
