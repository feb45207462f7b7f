"""What decides a row is in its key: every kind of row, computed for real under a watch.

A row that is reused although something behind it changed is wrong in silence. So each kind declares what decides its
values, what computes them sees that and nothing else, and here each is made to show it: what it reads, which code of
ours runs, and which libraries that code imports.
"""

import ast
import dataclasses
import sys
import threading
from functools import partial

import polars as pl
import pytest

from apt_assets.engine.scope import RowScope, UndeclaredRead
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.rows import (
    answers,
    by_server,
    by_transformers,
    encoder,
    grades,
    likelihoods,
    references,
    samples,
    scores,
)
from apt_assets.rows.policy import Adapter
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.world.code import BOUNDARY, PACKAGES, CodeDigests, inside
from resources.assessors import Row, in_parts
from resources.assessors.kinds import ASSESSORS
from resources.model.openai_server import served_name
from resources.store.rows import collect
from tests import tiny
from tests.fake_endpoint import always, serve
from tests.test_backends import Model, serving

KINDS = {
    kind.name: kind
    for kind in (
        *answers.KINDS,
        *grades.KINDS,
        samples.SAMPLES,
        scores.SCORES,
        references.REFERENCES,
        likelihoods.LIKELIHOODS,
        encoder.VECTORS,
    )
}
# What opens inputs for a computation, and moves what it gives: it decides no value.
MACHINERY = (*BOUNDARY, "apt_assets.project", "apt_assets.world", "apt_assets.landing")
# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"lm_eval": "lm-eval", "sentence_transformers": "sentence-transformers"}
# Libraries that carry values and decide none: arrays and tables in memory, files, connections, checks of settings.
INERT = {"datasets", "lancedb", "numpy", "pandera", "polars", "pyarrow", "pydantic", "requests", "safetensors"}
INERT |= {"urllib3", "yaml"}
# What a person says of a server. Nothing reads it: a change of it says that answers change.
TOLD = {"policy.server.engine"}
PROMPTS = ["Colour of the sky?", "Colour of the grass?"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.fixture
def opened(make_experiment, tiny_folder, talker, home, monkeypatch):
    """A function (kind) -> (RowScope, a function that computes a few rows under a scope), all of it real."""
    servers = []

    def open_kind(kind):
        changes, given = {}, {}
        policy = {"model": str(talker), "system_prompt": "Be brief.", "max_new_tokens": 3}
        if kind is by_server.ANSWERS:
            base = Project.open(make_experiment(policy=policy)).identity("base_model")
            servers.append(serving(Model(talker, served_name(base, None))))
            policy |= {"backend": "openai", "server": {"url": servers[-1].__enter__(), "engine": "a test"}}
        if kind.name.startswith("grades"):
            name = kind.name.split()[2]
            changes["assessor"] = {"kind": name}
            if name in ("rouge_l", "chrf"):
                changes["assessor"] = {"kind": "overlap", "overlap": {"metric": name}}
            if name == "rubric":
                changes["assessor"]["rubric"] = {"model": str(tiny_folder / "policy")}
            if kind.name.endswith("endpoint"):
                servers.append(serve(always(3)))
                changes["assessor"]["rubric"] |= {"endpoint": servers[-1].__enter__().url, "requests_per_minute": None}
        project = Project.open(make_experiment(policy=policy, **changes))
        if "adapter" in kind.given:
            given["adapter"] = adapter_on(talker, home)
            if kind is by_server.ANSWERS:
                given["adapter"] = None
        if "labels" in kind.given:
            given["labels"] = ["blue", "green"]
        return project, given, partial(compute, kind, project)

    yield open_kind
    for server in servers:
        server.__exit__(None, None, None)


def adapter_on(talker, home):
    folder = home / "adapter"
    if not folder.exists():
        tiny.make_adapter(folder, talker)
    return Adapter(folder, {"adapter_model.safetensors": "its digest"})


def compute(kind, project, scope):
    """A few rows of the kind, by what the stages call."""
    if kind.name.startswith("answers"):
        backend = next(backend for backend in answers.BACKENDS.values() if backend.ANSWERS.name == kind.name)
        return collect(2, backend.answer(scope, PROMPTS))
    if kind.name == "samples":
        return collect(2, samples.sample(scope, list(zip(PROMPTS, "ab", strict=True))))
    if kind.name == "scores":
        (task,) = project.tasks.load({"colours": 3})
        return collect(3, scores.score(task, scope, [0, 1, 2]))
    if kind.name == "vectors":
        return collect(2, encoder.open_encoder(scope).embed(PROMPTS))
    if kind.name == "references":
        return log_probs(project, scope)
    if kind.name == "likelihoods":
        return collect(2, likelihoods.score(scope, [(prompt, "blue", "green") for prompt in PROMPTS]))
    variant = next(v for a in ASSESSORS.values() for v in a.variants if v.rows.name == kind.name)
    rows = [
        Row(question, said, gold) for question, said, gold in zip(PROMPTS, ["3 m", "4 km"], ["3 m", "4 m"], strict=True)
    ]
    return collect(2, in_parts(variant.open(scope), rows))


def log_probs(project, scope):
    from resources.training.trainer import make_trainer, reference_log_probs

    pairs = pl.DataFrame({"prompt": PROMPTS, "chosen": ["blue", "green"], "rejected": ["red", "black"]})
    experiment = project.experiment
    recipe = references.recipe_of(experiment.training, experiment.policy, 1e-3, project.outside("execution"))
    folder, prompt = project.models.base_model, experiment.policy.system_prompt
    trainer = make_trainer(
        folder, scope.given["adapter"].folder, pairs, prompt, recipe, project.home / "out", lambda *given: None
    )
    asked = partial(reference_log_probs, trainer, prompt, recipe)
    return collect(2, references.log_probs(scope, recipe, (folder, prompt), asked, [0, 1]))


@pytest.mark.parametrize("name", KINDS)
def test_whatever_computes_a_row_reads_only_what_its_key_holds_and_all_of_our_code_that_runs_is_in_it(name, opened):
    kind = KINDS[name]
    project, given, run = opened(kind)
    project.check()
    project.find_out(kind.identities)  # what only looks at a model decides no row
    scope = RowScope(project, kind, given)
    code, called = set(scope.context()["code"]), set()

    def profile(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        ran = event == "call" and frame.f_code.co_name != "<module>"
        if ran and inside(module, PACKAGES) and not inside(module, MACHINERY):
            called.add(module)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        rows = run(scope)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert len(rows) >= 2
    assert called, "something of ours ran"
    assert called - code == set()


@pytest.mark.parametrize(
    ("name", "field", "lost"),
    [
        (kind.name, field, lost)
        for kind in KINDS.values()
        for field in ("settings", "identities", "given")
        for lost in getattr(kind, field)
        if lost not in TOLD
    ],
)
def test_key_that_leaves_out_one_name_of_what_decides_its_rows_is_an_error_and_no_row(name, field, lost, opened):
    kind = KINDS[name]
    project, given, run = opened(kind)
    kept = tuple(one for one in getattr(kind, field) if one != lost)
    less = dataclasses.replace(kind, **{field: kept})
    given = {one: value for one, value in given.items() if one in less.given}
    with pytest.raises((UndeclaredRead, KeyError)):
        run(RowScope(project, less, given))


def imported_by(code: CodeDigests, kind) -> set[str]:
    """Distributions that the code in the key imports, those apart that decide nothing."""
    found = set()
    for file in {file for start in kind.code for file in code.files(start)}:
        for node in ast.walk(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.split(".")[0] for name in names}
    others = found - set(sys.stdlib_module_names) - set(PACKAGES) - INERT
    return {DISTRIBUTIONS.get(name, name) for name in others}


@pytest.mark.parametrize("name", KINDS)
def test_every_library_that_the_code_of_a_key_imports_is_in_the_key(name):
    kind = KINDS[name]
    imported = imported_by(CodeDigests(REPOSITORY), kind)
    if name.split()[-1] in ("rouge_l", "chrf"):
        # One file scores by either; only the one that the metric chooses counts.
        imported -= {"rouge_score", "sacrebleu"} - set(kind.libraries)
    if imported & {"transformers", "sentence-transformers"}:
        imported.add("tokenizers")  # which they tokenise by, and which is updated without them
    assert imported == set(kind.libraries)


@pytest.mark.parametrize("name", KINDS)
def test_changed_value_of_anything_declared_is_another_key(name, opened, monkeypatch):
    kind = KINDS[name]
    project, given, _ = opened(kind)
    before = RowScope(project, kind, given).context()
    assert set(before["settings"]) >= {path for path in kind.settings if path.count(".") > 1 or "policy" in path}
    assert set(before["identities"]) == set(kind.identities)
    assert set(before["libraries"]) >= set(kind.libraries)
    monkeypatch.setattr(Project, "identity", lambda self, name: f"another {name}")
    monkeypatch.setattr(Project, "code", lambda self, start: {start: "another"})
    after = RowScope(project, kind, given).context()
    changed = {part for part in before if before[part] != after[part]}
    assert changed == {"code", *(["identities"] if kind.identities else [])}


def test_every_kind_of_row_belongs_to_a_stage_that_declares_all_that_it_does():
    declared = {setting for stage in STAGES.values() for setting in stage.settings}
    for kind in KINDS.values():
        assert set(kind.settings) <= declared | {"assessor.overlap"}, kind.name


def test_stage_that_uses_a_kind_of_row_that_it_does_not_declare_is_told_what_it_lacks(project):
    from apt_assets.engine.view import View

    view = View(project, project.planner().stage("0001", "bad_cases"), project.planner())
    with pytest.raises(UndeclaredRead, match="but does not declare policy"):
        view.rows(by_transformers.ANSWERS, adapter=None)
