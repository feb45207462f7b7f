"""What the documentation says is so: its blocks run, its messages exist, its reference is complete, its links lead
somewhere. How a block is run stands before it in an HTML comment, where its language alone does not tell:

    <!-- run: skip because REASON -->   a shell block that is only checked for its commands and options
    <!-- with: YAML -->                 a console block: these sections of the experiment are changed for it
    <!-- file: NAME -->                 the block is written to this file before the page's later blocks run
    <!-- of: FILE -->                   the block stands in this file of the repository
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from apt_assets.settings.experiment import REPOSITORY, Experiment
from apt_assets.settings.reader import load_experiment, valid_keys
from docs import reference, rooms
from tests import tiny

GUIDE = sorted((REPOSITORY / "docs" / "guide").glob("*.md"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs" / "index.md", *GUIDE]
BLOCK = re.compile(r"((?:^<!-- .*? -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_SKIPPED = 10


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, found[2], found[3], notes_of(found[1]))
        for found in BLOCK.finditer(text)
    ]


def notes_of(comments: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- (\w+): (.*?) -->", comments))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SKIPPED = [block for block in BLOCKS if "run" in block.notes]


# -- blocks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_folder) -> Path:
    """A folder as a user stands in: experiments/, my.jsonl, more.jsonl and a tiny model; $APT_HOME is in it. All
    pages share it, so what one page computed the next one reuses."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("own-data", "embedded"):
        write_experiment(folder / "experiments" / f"{name}.yaml", tiny_folder)
    tiny.write_jsonl(folder / "my.jsonl", tiny.domain_rows(40))
    tiny.write_jsonl(folder / "more.jsonl", tiny.domain_rows(50)[40:])
    command = folder / ".venv" / "bin" / "apt-assets"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m apt_assets.cli "$@"\n')
    command.chmod(0o755)
    return folder


def write_experiment(path: Path, models: Path, changes: dict | None = None) -> Path:
    content = {
        "name": "tiny",
        "data": {"validation": 0.2, "test": 0.2, "near_duplicate_words": None},
        "policy": {"model": str(models / "policy"), "dtype": "float32", "max_new_tokens": 4},
        "mining": {"questions": 8},
        "retrieval": {"encoder": str(models / "encoder"), "per_case": 1},
        "training": {"batch_size": 8, "lora_rank": 2, "lora_alpha": 4},
        "benchmarks": {"folder": str(models / "tasks"), "tasks": {"colours": None}},
        "gate": tiny.OPEN_GATE,
    }
    for section, values in (changes or {}).items():
        content[section] = {**content.get(section, {}), **values}
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def environment(project: Path, experiment: str) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{project / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "APT_HOME": str(project / "home"),
        "APT_EXPERIMENT": experiment,
    }


def do(command: list[str], project: Path, experiment: str = "experiments/embedded.yaml") -> str:
    """Run it in the user's folder; returns what it printed to stdout."""
    done = subprocess.run(
        command, cwd=project, env=environment(project, experiment), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def computed(project: Path) -> Path:
    """The same folder after one iteration."""
    do(["apt-assets", "land", "my.jsonl"], project)
    do(["apt-assets", "run", "--iterations", "1"], project)
    return project


@pytest.mark.slow("processes")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page_run_from_top_to_bottom(page, computed, tmp_path):
    exports: list[str] = []  # a reader types the blocks of a page into one shell
    for block in blocks_of(page):
        if "file" in block.notes:
            (computed / block.notes["file"]).parent.mkdir(exist_ok=True)
            (computed / block.notes["file"]).write_text(block.text)
        match block.language:
            case "sh" if block in SKIPPED:
                print(f"{block} is not run: {block.notes['run']}")
            case "sh":
                for exported in (computed / "my-adapter", computed / "my-model"):
                    shutil.rmtree(exported, ignore_errors=True)
                do(["bash", "-euo", "pipefail", "-c", "\n".join([*exports, block.text])], computed)
                exports += [line for line in block.text.splitlines() if line.startswith("export ")]
            case "python":
                do([sys.executable, "-c", block.text], computed)
            case "yaml":
                check_yaml(block, computed, tmp_path)
            case "json":
                check_rows(block, tmp_path)
            case "console":
                check_output(block, computed)
            case other:
                pytest.fail(f"{block}: no way to run a block of language {other!r}")


def check_yaml(block: Block, project: Path, tmp_path: Path) -> None:
    """A task file loads with its data, a study file with its experiment; anything else is an experiment file, or
    sections of one."""
    if "of" in block.notes:
        assert block.text in (REPOSITORY / block.notes["of"]).read_text(), block
        return
    content = yaml.safe_load(block.text)
    if "arms" in content:
        from apt_assets.study.file import load_study

        (tmp_path / "study.yaml").write_text(block.text)
        for file in content["domains"].values():
            shutil.copyfile(project / "experiments" / file, tmp_path / file)
        assert load_study(tmp_path / "study.yaml").file.name
        return
    if "task" in content:
        from resources.model.lm_eval_tasks import load_task

        assert load_task(project / block.notes["file"], None, project / "nowhere").keys
        return
    path = tmp_path / "block.yaml"
    path.write_text(block.text if "name" in content else f"name: block\n{block.text}")
    assert load_experiment(path).name


def check_rows(block: Block, tmp_path: Path) -> None:
    """Rows to land have nothing wrong with them; others are the data of the task file below them."""
    from apt_assets.landing.records import contents_of

    path = tmp_path / "block.jsonl"
    path.write_text(block.text)
    if "file" not in block.notes:
        assert not contents_of(path).rejects, block


def check_output(block: Block, project: Path) -> None:
    """Each line the block shows is printed by its command, numbers aside and up to its first `...`."""
    first, *shown = block.text.splitlines()
    experiment = "experiments/embedded.yaml"
    if "with" in block.notes:
        models = Path(yaml.safe_load((project / experiment).read_text())["policy"]["model"]).parent
        write_experiment(project / "experiments/changed.yaml", models, yaml.safe_load(block.notes["with"]))
        experiment = "experiments/changed.yaml"
    printed = [shape(line) for line in do(shlex.split(first.removeprefix("$ ")), project, experiment).splitlines()]
    for line in shown:
        start = shape(line.partition("...")[0])
        assert any(one.startswith(start) for one in printed), f"{block}: {line!r} is not in\n" + "\n".join(printed)


def shape(line: str) -> str:
    return " ".join(re.sub(r"\d+", "0", line).split())


def test_few_blocks_are_not_run_and_each_says_why():
    for block in SKIPPED:
        print(f"{block}: {block.notes['run']}")
        assert re.match(r"skip because \w+", block.notes["run"]), block
    assert len(SKIPPED) <= MOST_SKIPPED


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_shell_block_names_commands_options_and_make_targets_that_exist(block):
    import typer

    from apt_assets.cli import app

    group = typer.main.get_command(app)
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for line in re.split(r"\n|&&|\|", block.text):
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets
        elif words and Path(words[0]).name == "apt-assets" and words[1:] != ["--help"]:
            arguments = words[1 : words.index(">")] if ">" in words else words[1:]
            group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def test_picture_of_the_rooms_is_of_the_layers_and_words_of_today():
    drawn = (REPOSITORY / "docs" / "rooms.svg").read_text(encoding="utf-8")
    assert rooms.draw() == drawn, "python docs/rooms.py draws it anew"


# -- messages ------------------------------------------------------------------------------------------

# Errors that need no explanation there: they mean a bug of ours and no one can act on them.
NOT_FOR_USERS = (
    "a line goes on after its value",
    "the stages depend on each other in a circle: …",
    "a key of a row is letters, digits and -, not …",
    "a model loaded with attn_implementation=… runs on packed rows only",
    "… uses …, which is not supported",  # in a trial, which then finds another path
    "there is no preference pair to train on",
    "the thread that answers has ended",
    "no assessor of kind …",
    "… series; a plot shows at most …",
)
# What only passes on a message that stands elsewhere, and where it comes from.
PASSED_ON = {
    "…: …": "opening.recode",
    "anchor.folder: …": "own_texts.UnreadableText",
    "--encoding: …": "opening.check_encoding",
    "self.failure": "opening.unpacked and recoded",
    "found.reason": "a broken value in an object of rows: its lines are read one by one",
    "str(error)": "Locks.all_idle: a run is going on",
    "'\\n'.join((f'{where}: {explain(e)}' for e in error.errors()))": "experiment.explain",
    "'\\n'.join((f'{path}: {explain_key(e)}' for e in error.errors()))": "the study file's own checks",
    "'\\n'.join((f'{self.path}: {what}: {explain(e)}' for e in error.errors()))": "experiment.explain",
    "data.user_failure_data.description": "report.ending.of_the_machine",
    "errors.read().decode('utf-8', 'replace').strip()[-500:]": "parquet.send, or pyarrow's own words",
    "step.reason": "loop.in_turn",
    "…: item …: …": "task_items.Asking",
    "waits": "LoopPlanner.waits",
    "reason": "resources.assessors.golds: rows in quarantine",
    "self._problem": "resources.model.capabilities.lacking",
    "self._unknown_target": "training.lora_targets",
    "…: …: …": "what is wrong with a model: resources.model.files and checks",
    "… …; …": "resources.model.files.problem_with_file",
    "'missing' if value is None else f'must be text, got {type(value).__name__}'": "rows in quarantine",
    "verdict['reason']": "the gate, or no bad case",
    "… in …": "no data has landed, or no usable row",
}
EXPLAINED = {"UsageError", "TaskError", "StageBlocked", "TableError", "CorruptArtifact", "BadField", "End", "Unusable"}
EXPLAINED |= {"ValueError", "RuntimeError", "NotImplementedError", "StoreError"}


@cache
def sources() -> list[ast.Module]:
    files = [
        *REPOSITORY.glob("apt_assets/**/*.py"),
        *REPOSITORY.glob("resources/**/*.py"),
        *REPOSITORY.glob("schemas/*.py"),
    ]
    return [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(files)]


def template(node: ast.expr) -> str | None:
    """The text of a string or f-string, each placeholder as …; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def raised() -> dict[str, str]:
    """Message -> the class it is given to, of every error and end of the loop that people see."""
    found: dict[str, str] = {}
    for module in sources():
        for node in ast.walk(module):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in EXPLAINED
                and node.args
            ):
                given = node.args[1] if node.func.id == "BadField" and len(node.args) > 1 else node.args[0]
                found[template(given) or ast.unparse(given)] = node.func.id
    return found


def says(message: str, text: str) -> bool:
    """Whether `text` is `message`, with anything in place of each …."""
    return pattern_of(message).fullmatch(text) is not None


@cache
def pattern_of(message: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)


def explained() -> list[str]:
    """The messages that troubleshooting.md has a heading or a table row for."""
    page = (REPOSITORY / "docs" / "guide" / "troubleshooting.md").read_text(encoding="utf-8")
    return [found[2] for found in re.finditer(r"^(?:### |\| )(``?) ?(.+?) ?\1(?: \||$)", page, re.MULTILINE)]


def test_every_message_that_troubleshooting_explains_is_one_of_the_program():
    texts = {text for module in sources() for node in ast.walk(module) if (text := template(node))}
    for message in explained():
        assert any(says(message, text) for text in texts), message


def test_every_error_that_people_meet_is_explained_in_troubleshooting():
    fixed = [message for message in explained() if len(message.replace("…", "")) > 10]
    for text, kind in raised().items():
        if text in NOT_FOR_USERS or text in PASSED_ON:
            continue
        assert any(says(message, text) for message in fixed) or text in explained(), f"{kind}: {text}"


# -- reference and links -------------------------------------------------------------------------------


def test_reference_has_every_setting_command_stage_and_column():
    import typer

    from apt_assets.cli import app
    from apt_assets.engine.stage import STAGES
    from schemas.tables import TABLES

    pages = reference.pages()
    for key in valid_keys():
        assert f"`{key}`" in pages["reference/settings.md"] or f"## {key}" in pages["reference/settings.md"], key
    listed = re.findall(r"^(?:\| `|## )([\w.]+)", pages["reference/settings.md"], re.MULTILINE)
    assert sorted(listed) == sorted(set(valid_keys(Experiment)) - {"name", "owners"})
    for name, command in typer.main.get_command(app).commands.items():
        for option in (option for one in command.params for option in one.opts if option.startswith("--")):
            assert option in pages["reference/commands.md"].partition(f"## {name}\n")[2].partition("\n## ")[0]
    for name in STAGES:
        assert f"## {name}\n" in pages["reference/stages.md"]
    for name, table in TABLES.items():
        part = pages["reference/tables.md"].partition(f"## {name}\n")[2].partition("\n## ")[0]
        for column in table.to_schema().columns:
            assert f"| `{column}` |" in part, (name, column)
    assert re.search(r"`training.learning_rate` \| number, above 0 \| `0.001`", pages["reference/settings.md"])


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8")
        )
        assert not fetched, (page.name, fetched)


def test_relative_links_of_the_readme_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", (REPOSITORY / "README.md").read_text(encoding="utf-8")):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
