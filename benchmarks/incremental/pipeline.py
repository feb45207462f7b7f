"""The DVC pipeline of the loop: dvc.yaml as a careful user would write it.

One stage per step and iteration, each with the files it reads, the code it calls and the parameters
it uses. Answers, grades, embeddings, scores and tasks are stages of their own, so that a new rubric
asks nothing again, a new threshold embeds nothing again, and a new benchmark item does neither. What the
trainer reads is a file of its own, as in apt-assets: a grade that changes no pair trains nothing again.
"""

from typing import Any

from benchmarks.incremental.steps import HELD_OUT, Config

# $APT_PYTHON is filled in by the shell: a path in here would be part of every stage's identity.
COMMAND = "$APT_PYTHON -m benchmarks.incremental.counted benchmarks.incremental.dvc_stage"
SCRIPTS = ("benchmarks/incremental/dvc_stage.py", "benchmarks/incremental/steps.py")
DOMAIN_CODE = tuple(f"apt_assets/{name}.py" for name in ("landing/records", "method/domain", "method/splits"))
ANSWERING = ("policy", "model")


def pipeline(config: Config) -> dict[str, Any]:
    """The content of dvc.yaml for as many iterations as `config` lists files for."""
    stages: dict[str, Any] = {}
    for name, number in [("base", 0), *((str(n), n) for n in range(1, len(config["files"]) + 1))]:
        stages |= iteration_stages(config, name, number)
    return {"stages": stages}


def iteration_stages(config: Config, name: str, number: int) -> dict[str, Any]:
    """The stages of one iteration; number 0: of the base model, which is only scored."""
    out = folder(number)
    files = config["files"][number - 1]
    splits = [f"{out}/{split}.parquet" for split in ("train", *HELD_OUT)]
    before = [f"{folder(number - 1)}/adapter"] if number > 1 else []
    own = [f"{out}/adapter"] if number else []
    model, tasks = config["model"], config["tasks"]
    labels = [f"{out}/train.parquet"]

    def stage(step: str, deps: list[str], code: list[str], params: list[str], outs: list[str]) -> dict[str, Any]:
        return {
            "cmd": f"{COMMAND} {step} {name}",
            "deps": [*deps, *SCRIPTS, *code],
            **({"params": params} if params else {}),
            "outs": [f"{out}/{one}" for one in outs],
        }

    policy_code, rubric = (
        [f"resources/model/{name}.py" for name in ("policy", "generation", "packing")],
        ["resources/assessors/labels.py"],
    )
    found = {
        "domain": stage("domain", files, [*DOMAIN_CODE], ["data"], [f"{s}.parquet" for s in ("train", *HELD_OUT)]),
        "heldout": stage("heldout", [*splits[1:], model, *own], policy_code, [*ANSWERING], ["heldout_answers.parquet"]),
        "general": stage(
            "general",
            [model, tasks, *own],
            [*policy_code, "resources/model/lm_eval_tasks.py"],
            [*ANSWERING, "tasks", "benchmarks"],
            ["general_items.parquet"],
        ),
        "score": stage("score", [f"{out}/heldout_answers.parquet", *splits], rubric, [], ["domain_items.parquet"]),
    }
    if number:
        found |= {
            "answer": stage("answer", [*labels, model, *before], policy_code, [*ANSWERING], ["answers.parquet"]),
            "grade": stage("grade", [f"{out}/answers.parquet", *labels], rubric, [], ["eval_predictions.parquet"]),
            "embed": stage(
                "embed",
                [*labels, config["encoder"]],
                ["resources/retrieval/encoder.py", *policy_code],
                ["encoder", "retrieval.batch_size", "policy.device"],
                ["vectors.npy"],
            ),
            "pairs": stage(
                "pairs",
                [f"{out}/eval_predictions.parquet", *labels, f"{out}/vectors.npy"],
                [f"apt_assets/method/{name}.py" for name in ("grades", "mining", "pairing")],
                ["assessor", "retrieval.per_case", "pairs"],
                ["preference_pairs.parquet", "training_pairs.parquet"],
            ),
            "train": stage(
                "train",
                [f"{out}/training_pairs.parquet", model, *before],
                ["resources/training/trainer.py", *policy_code],
                [*ANSWERING, "training"],
                ["adapter"],
            ),
            "gate": stage(
                "gate",
                [
                    *(f"{out}/{table}_items.parquet" for table in ("domain", "general")),
                    f"{folder(number - 1)}/domain_items.parquet",
                    f"{folder(0)}/general_items.parquet",
                ],
                ["apt_assets/method/gate.py", "apt_assets/method/grades.py"],
                ["gate"],
                ["verdict.txt"],
            ),
        }
    return {f"{step}_{name}": content for step, content in found.items()}


def folder(number: int) -> str:
    return f"out/{number:04d}" if number else "out/base"
