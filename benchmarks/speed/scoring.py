"""Multiple-choice items of the default tasks: ours against lm-eval's own HFLM at its best batch size.

    python -m benchmarks.speed.scoring

The embedded model, float32, the first items of QuaRTz and Social IQa: HFLM through lm-eval's
simple_evaluate, ours through the function that `benchmark_scores` calls. HFLM is tried once at each
batch size, and the fastest one then takes part. *In the model* leaves out what lm-eval does around it:
reading the task, building requests, listing installed packages (simple_evaluate only, a second a call).
"""

import copy
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from apt_assets.settings.experiment import REPOSITORY
from benchmarks.speed.contest import child, hold, ratio, run_one, save, spread
from benchmarks.speed.workload import CACHE

if TYPE_CHECKING:
    from resources.model.lm_eval_tasks import Task
    from resources.model.policy import Policy

ITEMS = {"quartz": 128, "social_iqa": 64}
BATCH_SIZES = (1, 4, 8, 16, 32)


def tasks() -> "list[Task]":
    from resources.model.lm_eval_tasks import load_tasks

    return load_tasks(REPOSITORY / "tasks", dict(ITEMS), CACHE / "general")


def numbers(samples: list[dict[str, Any]]) -> list[float]:
    """Log-likelihoods of all choices, item by item; of a passage, its own."""
    said = [response for sample in samples for response in sample["filtered_resps"]]
    return [response if isinstance(response, float) else response[0] for response in said]


def ours(case: str) -> dict[str, Any]:
    from resources.model.policy import load_policy

    return score_ours(load_policy(CACHE / "policy", dtype="float32"), tasks(), 1024)


def score_ours(policy: "Policy", tasks: "list[Task]", batch_tokens: int) -> dict[str, Any]:
    import resources.model.lm_eval_tasks
    from resources.model.lm_eval_tasks import evaluate

    evaluate(policy, tasks[0], [0, 1], batch_tokens)
    inside = stopwatch(resources.model.lm_eval_tasks, "collect")  # takes what score_answers yields
    seconds, found = 0.0, []
    for task in tasks:
        started = time.perf_counter()
        found += numbers(evaluate(policy, task, list(range(len(task.keys))), batch_tokens))
        seconds += time.perf_counter() - started
    return {"seconds": seconds, "in_model": sum(inside), "log_likelihoods": found}


def stopwatch(owner: Any, name: str) -> list[float]:
    """Seconds of each call of `owner.name` from now on."""
    work, spent = getattr(owner, name), []

    def timed(*arguments: Any, **others: Any) -> Any:
        started = time.perf_counter()
        result = work(*arguments, **others)
        spent.append(time.perf_counter() - started)
        return result

    setattr(owner, name, timed)
    return spent


def hflm(case: str) -> dict[str, Any]:
    from resources.model.policy import load_policy

    return score_by_hflm(load_policy(CACHE / "policy", dtype="float32", path="plain"), tasks(), int(case))


def score_by_hflm(policy: "Policy", tasks: "list[Task]", batch_size: int) -> dict[str, Any]:
    """The same by lm-eval's own model, of a policy that is run plainly."""
    import logging
    import os

    os.environ["HF_DATASETS_OFFLINE"] = "1"
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=batch_size)
    inside = stopwatch(model, "_loglikelihood_tokens")
    seconds, found = 0.0, []
    with tempfile.TemporaryDirectory() as cache:
        for warm in (True, False):
            inside.clear()
            for task in tasks:
                config = copy.deepcopy(task.config)
                config["dataset_kwargs"]["cache_dir"] = cache
                items = [0, 1] if warm else list(range(len(task.keys)))
                started = time.perf_counter()
                result = simple_evaluate(
                    model=model, tasks=[config], task_manager=TaskManager(include_defaults=False),
                    samples={config["task"]: items}, bootstrap_iters=0, log_samples=True,
                )  # fmt: skip
                if not warm:
                    seconds += time.perf_counter() - started
                    samples = sorted(result["samples"][config["task"]], key=lambda sample: sample["doc_id"])
                    found += numbers(samples)
    return {"seconds": seconds, "in_model": sum(inside), "log_likelihoods": found}


CONTESTANTS = {"ours": ours, "hflm": hflm}


def report(found: dict[str, Any]) -> str:
    its, items = found["runs"], sum(found["items"].values())
    rates = {name: sorted(items / run["seconds"] for run in runs)[len(runs) // 2] for name, runs in its.items()}
    faster = {"ours": "-", "hflm": f"**{ratio(its, 'ours', 'hflm'):.1f}x**"}
    inside = {"ours": "-", "hflm": f"{ratio(its, 'ours', 'hflm', 'in_model'):.1f}x"}
    return "\n".join(
        [
            f"| tool | seconds for {items} items | items a second | ours is faster by | in the model, s | by "
            "| peak GB |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {'ours' if name == 'ours' else 'HFLM, batch ' + found['best_batch_size']} | "
                f"{spread(runs, 'seconds', 1)} | {rates[name]:.1f} | {faster[name]} | "
                f"{spread(runs, 'in_model', 1)} | {inside[name]} | {max(run['peak_gb'] for run in runs):.1f} |"
                for name, runs in its.items()
            ),
            "",
            f"Largest difference of a log-likelihood: {found['largest_gap']:.1e} nats.",
        ]
    )


def main() -> None:
    module = "benchmarks.speed.scoring"
    trial = {str(size): run_one(module, "hflm", str(size))["seconds"] for size in BATCH_SIZES}
    best = min(trial, key=lambda size: trial[size])
    runs = hold(module, CONTESTANTS, [best])[best]
    gap = max(
        abs(a - b) for a, b in zip(runs["ours"][0]["log_likelihoods"], runs["hflm"][0]["log_likelihoods"], strict=True)
    )
    found = {"items": ITEMS, "hflm_by_batch_size": trial, "best_batch_size": best, "largest_gap": gap, "runs": runs}
    save("scoring", found, ("torch", "transformers", "lm-eval"))
    print(report(found))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
