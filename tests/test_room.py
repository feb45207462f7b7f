"""Rows that are longer than a model reads at once are named before anything is computed."""

import re

import pytest
from transformers import AutoTokenizer

from apt_assets.engine.display import Display
from apt_assets.method.splits import row_id, splits_of
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.rows import room
from apt_assets.settings.experiment import UsageError
from resources.assessors import Row
from resources.assessors.rubric import RUBRIC, build_prompt
from resources.model.policy import Reader, encode, load_tokenizer
from resources.model.room import positions_of
from tests import tiny

pytestmark = pytest.mark.slow("model")

SHORT = [{"prompt": f"Colour number {n}?", "answer": "red"} for n in range(20)]


@pytest.fixture
def land(tmp_path):
    def write(*rows, name="colours.jsonl"):
        tiny.write_jsonl(tmp_path / "landing" / name, list(rows))

    return write


def overhead(tiny_folder):
    """Tokens that the tiny policy's template has around a prompt."""
    return len(encode(Reader(load_tokenizer(tiny_folder / "policy"), None), "a")) - 1


def prompt_of(tokens, number=0):
    """One with so many tokens of the tiny tokenizer, which has one for each byte."""
    return f"{number} ".ljust(tokens, "x")


def problem(path):
    with pytest.raises(UsageError) as raised:
        Project.open(path).check()
    return str(raised.value)


# The tiny policy has 256 positions, and its answers in these tests have 4 tokens.


def test_prompt_that_just_fits_with_its_answer_runs_and_one_token_more_does_not(make_experiment, land, tiny_folder):
    room_for = 256 - 4 - overhead(tiny_folder)
    land(*SHORT, {"prompt": prompt_of(room_for), "answer": "red", "split": "test"})
    Project.open(make_experiment()).check()
    land(*SHORT, {"prompt": prompt_of(room_for + 1), "answer": "red", "split": "test"})
    said = problem(make_experiment())
    assert said.startswith("policy.model reads 256 tokens at once, of which policy.max_new_tokens takes 4; longer: ")
    assert "colours.jsonl line 21 (257 tokens); " in said
    assert "policy.max_new_tokens, or shorten these rows or take them out in " in said
    assert Project.open(make_experiment(policy={"max_new_tokens": 3})).check() is None


def test_system_prompt_counts(make_experiment, land, tiny_folder):
    land(*SHORT, {"prompt": prompt_of(200), "answer": "red"})
    Project.open(make_experiment()).check()
    assert "line 21" in problem(make_experiment(policy={"system_prompt": "Say a colour. " * 4}))


def test_rows_of_all_files_are_counted_and_the_first_ones_named(make_experiment, land):
    long = [{"prompt": prompt_of(300, n), "answer": "red"} for n in range(5)]
    land(*SHORT, *long[:2], name="a.jsonl")
    land(long[2], *SHORT, *long[3:], name="b.jsonl")
    said = problem(make_experiment())
    assert "longer: a.jsonl line 21 (" in said
    assert "a.jsonl line 22 (" in said
    assert "b.jsonl line 1 (" in said
    assert " and 2 more; " in said


def test_text_of_which_a_byte_count_tells_nothing_is_tokenised(make_experiment, land):
    """Of four bytes a character, four tokens of the tiny tokenizer."""
    land(*SHORT, {"prompt": "\N{GRINNING FACE}" * 50, "answer": "red"})
    Project.open(make_experiment()).check()
    land(*SHORT, {"prompt": "\N{GRINNING FACE}" * 64, "answer": "red"})
    assert "line 21 (2" in problem(make_experiment())


def test_answer_that_is_trained_on_must_fit_where_max_length_does_not_cut_it(make_experiment, land):
    row = {"prompt": "Tell?", "answer": "x" * 260, "split": "train"}
    land(*SHORT, row)
    said = problem(make_experiment())
    assert said.startswith("policy.model reads 256 tokens at once, the answer that is trained on included; longer: ")
    assert "set training.max_length to as many or less" in said
    Project.open(make_experiment(training={"max_length": 256})).check()
    land(*SHORT, {**row, "split": "validation"})
    Project.open(make_experiment()).check()


def test_rejected_answer_that_came_with_a_row_must_fit_as_well_where_it_is_trained_on(make_experiment, land):
    row = {"prompt": "Tell?", "answer": "red", "split": "train"}
    land(*SHORT, {**row, "rejected": "x" * 260})
    Project.open(make_experiment()).check()  # what the policy says itself is rejected
    Project.open(make_experiment(pairs={"rejected": "given"}, training={"objective": "sft"})).check()
    said = problem(make_experiment(pairs={"rejected": "given"}))
    assert said.startswith("policy.model reads 256 tokens at once, the answer that is trained on included; longer: ")
    assert "colours.jsonl line 21 (2" in said
    land(*SHORT, {**row, "rejected": "blue"})
    Project.open(make_experiment(pairs={"rejected": "given"})).check()


def test_answer_of_a_row_that_its_content_holds_out_need_not_fit(make_experiment, land):
    prompts = [f"Tell number {n}?" for n in range(40)]
    splits = dict(zip(prompts, splits_of([row_id(prompt) for prompt in prompts], 0.2, 0.2), strict=True))
    held_out = [prompt for prompt, split in splits.items() if split != "train"]
    assert held_out
    land(*SHORT, *({"prompt": prompt, "answer": "x" * 260} for prompt in held_out))
    Project.open(make_experiment()).check()
    trained = next(prompt for prompt, split in splits.items() if split == "train")
    land(*SHORT, {"prompt": trained, "answer": "x" * 260})
    assert "line 21" in problem(make_experiment())


def test_rubric_and_row_must_fit_into_a_local_grader(make_experiment, land, tiny_folder, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    grader = tmp_path / "grader"
    config = AutoConfig.from_pretrained(tiny_folder / "policy")
    config.max_position_embeddings = 2048
    AutoModelForCausalLM.from_config(config).save_pretrained(grader)
    AutoTokenizer.from_pretrained(tiny_folder / "policy").save_pretrained(grader)
    land(*SHORT)
    assessor = {"kind": "rubric", "rubric": {"model": str(grader)}}
    Project.open(make_experiment(assessor=assessor)).check()
    said = problem(make_experiment(assessor={**assessor, "rubric": {"model": str(grader), "text": "Be fair. " * 200}}))
    assert said.startswith("assessor.rubric.model reads 2,048 tokens at once, the rubric and an answer of 4 tokens")
    assert "and 17 more" in said
    (tokens,) = {int(n.replace(",", "")) for n in re.findall(r"line 1 \(([\d,]+) tokens", said)}
    prompt = build_prompt(Row(SHORT[0]["prompt"], "", "red"), "Be fair. " * 200).text
    assert tokens == len(encode(Reader(load_tokenizer(grader), None), prompt)) + 4 + room.REPLY
    assert len(RUBRIC) < 2048
    land(*SHORT, {"prompt": "Tell?", "answer": ["red", "x" * 1900], "split": "test"})
    assert "longer: colours.jsonl line 21 (" in problem(make_experiment(assessor=assessor)), "a grader reads every gold"
    land(*SHORT, {"prompt": "Tell?", "answer": [f"a{n}" for n in range(100)], "split": "test"})
    assert "longer: colours.jsonl line 21 (" in problem(make_experiment(assessor=assessor)), "and what stands before it"


def test_run_names_them_before_anything_is_computed_and_goes_on_once_they_are_taken_out(make_experiment, land):
    rows = tiny.domain_rows(40)
    land(*rows, {"prompt": prompt_of(300), "answer": "red"})
    project = Project.open(make_experiment())
    with pytest.raises(UsageError, match=r"policy\.model reads 256 tokens"):
        run_loop(project, 1, Display())
    assert project.store.pointed("tiny", "base", "heldout_rows") is None
    land(*rows)
    assert run_loop(project, 1, Display()).passed


def test_file_is_tokenised_once_for_its_rows_and_not_at_all_where_no_row_could_be_too_long(
    make_experiment, land, monkeypatch
):
    read = []
    monkeypatch.setattr(room, "read_landed", lambda path, real=room.read_landed: read.append(path.name) or real(path))
    land(*SHORT, name="short.jsonl")
    land(*SHORT, {"prompt": prompt_of(240), "answer": "red", "split": "test"}, name="long.jsonl")
    for _ in range(2):
        Project.open(make_experiment()).check()
    assert read == ["long.jsonl"] * 2, "for asking and for training"
    Project.open(make_experiment(policy={"max_new_tokens": 3})).check()
    assert read == ["long.jsonl"] * 3, "what is trained on is decided by other settings"


# -- how much a model reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("gpt2", {"n_positions": 128}, 128),
        ("llama", {"max_position_embeddings": 4096}, 4096),
        ("mistral", {"max_position_embeddings": 4096, "sliding_window": 8}, 4096),
        ("opt", {"max_position_embeddings": 64}, 64),
        ("bloom", {}, None),
        ("mamba", {}, None),
        ("mpt", {}, None),
        ("rwkv", {"context_length": 8}, None),
        ("falcon", {"max_position_embeddings": 64}, 64),
        ("falcon", {"max_position_embeddings": 64, "alibi": True}, None),
        ("xlnet", {}, None),
        ("gemma3", {}, 131072),
    ],
)
def test_limit_is_that_of_the_positions_and_none_where_there_are_none(kind, given, expected):
    from transformers import CONFIG_MAPPING

    assert positions_of(CONFIG_MAPPING[kind](**given).get_text_config()) == expected


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, 4096),
        ({"rope_type": "linear", "factor": 4.0}, 16384),
        ({"rope_type": "dynamic", "factor": 2.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        (
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0},
            4096,
        ),
    ],
)  # fmt: skip
def test_scaled_positions_count_as_the_configuration_has_them(scaling, expected):
    from transformers import LlamaConfig

    config = LlamaConfig(max_position_embeddings=4096, rope_scaling=scaling)
    assert positions_of(config) == expected
