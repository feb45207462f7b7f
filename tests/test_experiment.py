from pathlib import Path

import pytest

from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.reader import load_experiment


def load(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_experiment(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: x\ntraining: {betta: 0.2}",
            "training.betta: unknown key; the nearest valid key is training.beta",
        ),
        (
            "name: x\ntraining.beta: 0.2",
            "training.beta: unknown key; .*write `training: {beta: ...}`",
        ),
        ("name: x\nassessor: {calibration.floor: 1}", ".*write `assessor: {calibration: {floor: ...}}`"),
        ("name: x\ntrainning: {beta: 0.2}", "trainning: unknown key; the nearest valid key is training"),
        ("name: x\ntraining: {beta: high}", "training.beta: Input should be a valid number.*'high'"),
        ("name: x\nmining: {questions: '10'}", "mining.questions: Input should be a valid integer.*'10'"),
        (
            "name: x\npolicy: {dtype: float8}",
            "policy.dtype: Input should be 'auto', 'bfloat16', 'float16' or 'float32'",
        ),
        ("name: x\ndata: {test: 1.5}", "data.test: .*less than or equal to 1"),
        ("name: x\ntraining: {seed: -1}", "training.seed: .*greater than or equal to 0"),
        ("name: x\ntraining: {seed: 4294967296}", "training.seed: .*less than 4294967296"),
        ("name: x\ngate: {likelihood_tolerance: .inf}", "gate.likelihood_tolerance: .*finite number"),
        ("name: x\ntraining: {learning_rate: .inf}", "training.learning_rate: .*finite number"),
        ("name: x\ndata: {validation: 0.5, test: 0.5}", "no row would be left to train on"),
        ("name: x\npolicy: {dtype: float16}", "policy: .*float16 needs a GPU: set device to cuda"),
        ("name: x\npolicy: {quantization: nf4}", "policy: .*nf4 needs a GPU: set device to cuda"),
        ("name: x\npolicy: {quantization: nf4, device: cuda, dtype: float16}", "policy: .*nf4 needs dtype bfloat16"),
        (
            "name: x\npolicy: {backend: vllm}",
            "policy.backend: .*as a server now.*write `backend: openai` and `server: ",
        ),
        ("name: x\npolicy: {backend: openai}", "policy: .*openai and server.url go together"),
        ("name: x\npolicy: {server: {url: 'localhost:8000'}}", "policy.server.url: .*pattern"),
        ("name: x\npolicy: {server: {url: 'http://me:secret@host/v1'}}", "policy.server.url: .*pattern"),
        ("name: x\npolicy: {server: {urll: 'x'}}", "policy.server.urll: .*nearest valid key is policy.server.url"),
        ("name: x\ntraining: {lora_targets: q_proj}", "training.lora_targets: "),
        ("name: x\ntraining: {objective: sft, beta: high}", "training.beta: Input should be a valid number.*'high'"),
        ("name: x\ntraining: {workers: 9}", "training: .*workers: 9 would share a batch of 8 pairs"),
        (
            "name: x\npolicy: {quantization: nf4, device: cuda, dtype: bfloat16}\n"
            "training: {workers: 2, strategy: fsdp2}",
            "training: .*set policy.quantization to none",
        ),
        ("name: A name", "name: .*pattern"),
        ("training: {}", "name: Field required"),
        ("- a\n- b", "must be a mapping"),
        ("name: [", "not readable as YAML"),
    ],
)
def test_wrong_setting_names_the_file_the_key_and_what_to_change(tmp_path, text, message):
    with pytest.raises(UsageError, match=f"(?s)mine.yaml: .*{message}"):
        load(tmp_path, text)


def test_learning_rate_may_be_written_without_a_dot(tmp_path):
    assert load(tmp_path, "name: x\ntraining: {learning_rate: 1e-3}").training.learning_rate == 0.001
    assert load(tmp_path, "name: x\ntraining: {learning_rate: 1.5e-3, beta: .5e0}").training.learning_rate == 0.0015


@pytest.mark.parametrize("written", ["on", "off", "auto", "'on'"])
def test_a_word_that_yaml_takes_for_true_or_false_is_the_word(tmp_path, written):
    found = load(tmp_path, f"name: x\ntraining: {{gradient_checkpointing: {written}}}")
    assert found.training.gradient_checkpointing == written.strip("'")


def test_strategy_of_a_single_worker_decides_nothing(tmp_path):
    def leaves(training):
        return load(tmp_path, f"name: x\ntraining: {{{training}}}").leaves("training")

    assert leaves("strategy: fsdp2") == leaves("")
    assert leaves("workers: 2, strategy: fsdp2") != leaves("workers: 2")


def test_every_experiment_in_the_repository_loads():
    for path in (REPOSITORY / "experiments").glob("*.yaml"):
        assert load_experiment(path).name
