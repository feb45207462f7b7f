"""The whole job cold: base scores and two iterations, ours against a plain script of the same work.

    python -m benchmarks.speed.whole_loop [--demo]

`ours` is `apt-assets land` and `run` in an empty store. `plain` is the script below, as one would write
it with the same libraries: sentence-transformers for the pool, transformers' generate() in batches of
16, TRL's DPOTrainer with its defaults (bf16 off), the lm-eval command line. Same data, splits,
questions, settings, float32; grading and pair building are our own functions in both. The small case is
the embedded default on 1,500 rows with a quarter of its questions and items, five times in turn; with
--demo, the embedded default as `make demo` runs it, once; on 2026-11-24 it had no anchor yet. Downloads
are done before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from apt_assets.settings.experiment import REPOSITORY, Experiment
from apt_assets.settings.reader import DEFAULT_EXPERIMENT
from benchmarks.speed.contest import child, hold, ratio, save, spread
from benchmarks.speed.workload import CACHE

ITERATIONS = 2
SMALL: dict[str, Any] = {
    "mining": {"questions": 60},
    "pairs": {"max_bad_cases": 35},
    "benchmarks": {"tasks": {"quartz": 100, "social_iqa": 40}},
}


def experiment_of(case: str, folder: Path) -> Path:
    """The embedded default's experiment file, in float32 and with its landing folder in `folder`."""
    content = yaml.safe_load(DEFAULT_EXPERIMENT.read_text(encoding="utf-8"))
    changes = {**(SMALL if case == "small" else {}), "data": {"landing": str(folder / "landing" / "icd10")}}
    changes["policy"] = {"dtype": "float32"}
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values}
    (folder / "loop.yaml").write_text(yaml.safe_dump(content))
    rows = (CACHE / "icd10.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "icd10.jsonl").write_text("".join(rows[::8] if case == "small" else rows), encoding="utf-8")
    return folder / "loop.yaml"


def ours(case: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        experiment = experiment_of(case, home)
        (home / ".apt").mkdir()
        (home / ".apt" / "cache").symlink_to(CACHE)
        environment = {**os.environ, "APT_HOME": folder, "APT_EXPERIMENT": str(experiment)}
        cli = [sys.executable, "-m", "apt_assets.cli"]
        started = time.perf_counter()
        subprocess.run([*cli, "land", str(home / "icd10.jsonl")], env=environment, check=True, stdout=sys.stderr)
        command = [*cli, "run", "--iterations", str(ITERATIONS), "--json"]
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - started
        if result.returncode not in (0, 1):
            sys.exit(result.returncode)
        found = json.loads(result.stdout)
    stages: dict[str, float] = {}
    for entry in found["iterations"]:
        for name, stage in entry["stages"].items():
            stages[name] = stages.get(name, 0.0) + (stage.get("seconds") or 0.0)
    return {"seconds": seconds, "parts": stages, "iterations": found["iterations"]}


# -- the plain script ------------------------------------------------------------------------------


class Plain:
    """What the script keeps: settings, data and seconds by part."""

    def __init__(self, case: str, folder: Path):
        from apt_assets.landing.records import read_landed
        from apt_assets.method.domain import build_domain

        self.folder, self.parts = folder, {}
        path = experiment_of(case, folder)
        self.settings = Experiment.model_validate(yaml.safe_load(path.read_text()))
        data = self.settings.data
        self.tables = build_domain(
            read_landed(folder / "icd10.jsonl"), data.validation, data.test, data.near_duplicate_words
        )
        self.adapter: Path | None = None
        self.scores: list[Any] = []
        self.write_tasks()

    @contextmanager
    def part(self, name: str) -> Any:
        started = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - started

    def write_tasks(self) -> None:
        """The tasks with as many items as are asked, so that one call of lm-eval scores them all."""
        (self.folder / "tasks").mkdir()
        for name, items in self.settings.benchmarks.tasks.items():
            config = yaml.safe_load((REPOSITORY / "tasks" / f"{name}.yaml").read_text())
            lines = (CACHE / "general" / f"{name}.jsonl").read_text().splitlines(keepends=True)[:items]
            data = self.folder / "tasks" / f"{name}.jsonl"
            data.write_text("".join(lines))
            config["dataset_kwargs"]["data_files"] = dict.fromkeys(config["dataset_kwargs"]["data_files"], str(data))
            (self.folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def load(self) -> tuple[Any, Any]:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(CACHE / "policy", padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(CACHE / "policy", dtype=torch.float32)
        if self.adapter:
            model = PeftModel.from_pretrained(model, str(self.adapter))
        return model.eval(), tokenizer

    def answer(self, loaded: tuple[Any, Any], prompts: list[str]) -> list[str]:
        import torch

        from resources.model.policy import messages

        model, tokenizer = loaded
        said: list[str] = []
        for start in range(0, len(prompts), 16):
            chats = [messages(prompt, self.settings.policy.system_prompt) for prompt in prompts[start : start + 16]]
            batch = tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                out = model.generate(
                    **batch, max_new_tokens=self.settings.policy.max_new_tokens, do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )  # fmt: skip
            said += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]

    def graded(self, loaded: tuple[Any, Any], questions: Any) -> Any:
        import polars as pl

        from resources.assessors.labels import grade_rows, labels_of

        prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
        said = self.answer(loaded, prompts)
        grades = grade_rows(prompts, said, golds, labels_of(self.tables["train"]["answer"].to_list()))
        return questions.select("row_id", "prompt", "answer", "also").with_columns(
            pl.Series("prediction", said),
            pl.Series("grade", [grade for grade, _ in grades], dtype=pl.Int8),
            pl.Series("exact", [exact for _, exact in grades]),
        )

    def score(self) -> None:
        loaded = self.load()
        with self.part("held-out answers"):
            exact = {split: self.graded(loaded, self.tables[split])["exact"].mean() for split in ("validation", "test")}
        with self.part("lm-eval"):
            adapter = f",peft={self.adapter}" if self.adapter else ""
            command = [
                sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "16",
                "--model_args", f"pretrained={CACHE / 'policy'},dtype=float32{adapter}",
                "--tasks", ",".join(self.settings.benchmarks.tasks), "--include_path", str(self.folder / "tasks"),
            ]  # fmt: skip
            environment = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
            environment["HF_DATASETS_CACHE"] = str(self.folder / "datasets")
            subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        self.scores.append(exact)

    def nearest(self, cases: Any, vectors: Any) -> Any:
        """One similar training row for each bad case, by cosine, as `neighbors` does it."""
        import numpy as np
        import polars as pl

        train, bad = self.tables["train"], set(cases["row_id"])
        place = {row: i for i, row in enumerate(train["row_id"])}
        similarity = vectors[[place[row] for row in cases["row_id"]]] @ vectors.T
        similarity[:, [place[row] for row in bad]] = -1
        found = {}
        for case, row in zip(cases["row_id"], np.argmax(similarity, axis=1), strict=True):
            found.setdefault(int(row), case)
        return train[sorted(found)].with_columns(pl.Series("case_id", [found[row] for row in sorted(found)]))

    def train(self, pairs: Any, iteration: int) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig, PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        from resources.training.examples import as_conversations

        its, out = self.settings.training, self.folder / f"adapter-{iteration}"
        tokenizer = AutoTokenizer.from_pretrained(CACHE / "policy")
        model = AutoModelForCausalLM.from_pretrained(CACHE / "policy", dtype=torch.float32)
        lora = None
        if self.adapter:
            model = PeftModel.from_pretrained(model, str(self.adapter), is_trainable=True)
        else:
            lora = LoraConfig(
                r=its.lora_rank, lora_alpha=its.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            )
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=str(out), learning_rate=its.learning_rate * its.learning_rate_decay ** (iteration - 1),
                warmup_steps=its.warmup_steps, per_device_train_batch_size=its.batch_size, num_train_epochs=its.epochs,
                max_length=its.max_length, beta=its.beta, loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, its.nll_weight], seed=its.seed, use_cpu=True, bf16=False, save_strategy="no",
                report_to=[], disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(as_conversations(pairs, self.settings.policy.system_prompt, tokenizer)),
            processing_class=tokenizer,
            peft_config=lora,
        )  # fmt: skip
        trainer.train()
        trainer.model.save_pretrained(out, selected_adapters=["default"])
        self.adapter = out

    def iterate(self, iteration: int, vectors: Any) -> None:
        from apt_assets.method.mining import draw_questions, select_bad_cases
        from apt_assets.method.pairing import build_pairs

        mining, train = self.settings.mining, self.tables["train"]
        questions = draw_questions(train, f"{iteration:04d}", mining.questions, mining.seed)
        loaded = self.load()
        with self.part("questions"):
            predictions = self.graded(loaded, questions)
        below = self.settings.assessor.bad_below
        bad = select_bad_cases(predictions, below).head(self.settings.pairs.max_bad_cases)
        similar = self.nearest(bad, vectors)
        with self.part("similar cases"):
            answered = self.graded(loaded, similar)
        share = self.settings.pairs.replay_share
        pairs = build_pairs(bad, predictions, similar, answered, bad_below=below, replay_share=share)
        with self.part("training"):
            self.train(pairs, iteration)
        self.score()


def plain(case: str) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        script = Plain(case, Path(folder))
        script.score()
        with script.part("embedding"):
            encoder = SentenceTransformer(str(CACHE / "encoder"), device="cpu")
            vectors = encoder.encode(script.tables["train"]["prompt"].to_list(), normalize_embeddings=True)
        for iteration in range(1, ITERATIONS + 1):
            script.iterate(iteration, vectors)
        return {"seconds": time.perf_counter() - started, "parts": script.parts, "exact": script.scores}


CONTESTANTS = {"ours": ours, "plain": plain}


def report(runs: dict[str, Any]) -> str:
    lines = ["| case | ours, s | plain script, s | faster by |", "|---|---|---|---|"]
    for case, its in runs.items():
        lines.append(
            f"| {case} | {spread(its['ours'], 'seconds', 0)} | {spread(its['plain'], 'seconds', 0)} | "
            f"**{ratio(its, 'ours', 'plain'):.1f}x** |"
        )
    return "\n".join(lines)


def main(demo: bool) -> None:
    case = "demo" if demo else "small"
    runs = hold("benchmarks.speed.whole_loop", CONTESTANTS, [case], 1 if demo else 5)
    save(f"whole_loop_{case}", {"runs": runs}, ("torch", "transformers", "trl", "peft", "lm-eval"))
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main("--demo" in sys.argv)
