"""Which edits count as changed code, on made-up sources; and that nothing a stage runs is overlooked."""

import dataclasses
import sys
import textwrap

import pytest

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.engine.code import BOUNDARY, PACKAGES, CodeDigests, inside
from apt_assets.engine.stages import STAGES
from apt_assets.experiment import REPOSITORY

SOURCES = {
    "resources/__init__.py": "",
    "resources/words.py": '''
        """Words."""
        import re
        from resources.numbers import LIMIT
        PATTERN = re.compile("x")
        def clean(text):
            """Clean it."""
            return PATTERN.sub("", text)  # all of them
        def unused():
            return 1
        class Grader:
            def grade(self, text):
                return len(clean(text)) < LIMIT
    ''',
    "resources/numbers.py": "LIMIT = 3\nOTHER = 4\n",
    "apt_assets/__init__.py": "",
    "apt_assets/engine/__init__.py": "",
    "apt_assets/engine/machinery.py": "def move(): return 1\n",
    "apt_assets/stage.py": """
        from apt_assets.engine.machinery import move
        def compute(step):
            from resources.words import Grader
            move()
            return Grader().grade("x")
    """,
}


@pytest.fixture
def tree(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path


def closure(tree):
    return CodeDigests(tree).closure("apt_assets.stage:compute")


def edit(tree, name, old, new):
    path = tree / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_closure_is_what_the_function_can_reach_and_no_more(tree):
    assert set(closure(tree)) == {
        "apt_assets.stage.compute",
        "resources.words.Grader",
        "resources.words.clean",
        "resources.words.PATTERN",
        "resources.numbers.LIMIT",
    }


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("resources/words.py", "  # all of them", "  # each and every one"),
        ("resources/words.py", '"""Clean it."""', '"""Take the x away."""'),
        ("resources/words.py", '"""Clean it."""\n', "\n"),
        ("resources/words.py", 'PATTERN.sub("", text)', 'PATTERN.sub(\n        "",\n        text,\n    )'),
        ("resources/words.py", "return 1", "return 2"),
        ("resources/numbers.py", "OTHER = 4", "OTHER = 5"),
        ("apt_assets/engine/machinery.py", "return 1", "return 2"),
    ],
)
def test_comment_docstring_layout_unrelated_or_machinery_edit_changes_nothing(tree, name, old, new):
    before = closure(tree)
    edit(tree, name, old, new)
    assert closure(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("resources/words.py", 'sub("",', 'sub(" ",', "resources.words.clean"),
        ("resources/words.py", 'compile("x")', 'compile("y")', "resources.words.PATTERN"),
        ("resources/numbers.py", "LIMIT = 3", "LIMIT = 4", "resources.numbers.LIMIT"),
        ("resources/words.py", "< LIMIT", "<= LIMIT", "resources.words.Grader"),
        ("resources/numbers.py", "LIMIT = 3", "LIMIT = 3\nprint(1)", "resources.numbers (on import)"),
        ("resources/__init__.py", "", "import os\nos.umask(0)", "resources (on import)"),
    ],
)
def test_edit_of_anything_reachable_changes_exactly_its_definition(tree, name, old, new, changed):
    before = closure(tree)
    if old:
        edit(tree, name, old, new)
    else:
        (tree / name).write_text(new)
    after = closure(tree)
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == {changed}


def test_refresh_notices_an_edit_and_memory_of_other_sources_is_not_used(tree):
    memory = tree / "code.json"
    digests = CodeDigests(tree, memory)
    before = digests.closure("apt_assets.stage:compute")
    assert CodeDigests(tree, memory).closure("apt_assets.stage:compute") == before
    edit(tree, "resources/numbers.py", "LIMIT = 3", "LIMIT = 4")
    digests.refresh()
    assert digests.closure("apt_assets.stage:compute") != before
    assert CodeDigests(tree, memory).closure("apt_assets.stage:compute") == digests.closure("apt_assets.stage:compute")


def owner(frame):
    """(module, its top-level function or class) that a frame belongs to."""
    return frame.f_globals.get("__name__", ""), frame.f_code.co_qualname.split(".")[0]


def traced(stage, ran):
    """The stage, under a tracer that adds to ran[its name] what it calls of this project, the machinery apart."""

    def compute(step):
        called = ran.setdefault(stage.name, set())

        def profile(frame, event, _):
            caller = frame.f_back
            while caller is not None and owner(caller) == owner(frame):
                caller = caller.f_back  # a comprehension is part of its function
            module, called_by = owner(frame)[0], owner(caller)[0] if caller else ""
            # What the machinery itself calls, such as the digest of a task, decides no content.
            ours = inside(module, PACKAGES) and not inside(module, BOUNDARY) and not inside(called_by, BOUNDARY)
            # A function made inside another one is part of it.
            if event == "call" and ours and owner(frame)[1][0] not in "<_":
                called.add(".".join(owner(frame)))

        sys.setprofile(profile)
        try:
            stage.compute(step)
        finally:
            sys.setprofile(None)

    return dataclasses.replace(stage, compute=compute)


def test_every_function_that_a_stage_runs_is_in_its_closure(make_experiment, tmp_path):
    """The whole loop under a tracer: what is called between a stage's begin and end must be in the
    digest of the stage's code, or belong to the machinery."""
    from apt_assets.engine.execute import run_stage
    from apt_assets.engine.plan import stages_of
    from apt_assets.engine.stages import BASE
    from apt_assets.project import Project
    from tests import tiny

    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))
    project = Project.open(make_experiment())
    project.open_iteration("0001")
    ran: dict[str, set[str]] = {}

    real = dict(STAGES)
    try:
        STAGES.update({name: traced(stage, ran) for name, stage in real.items()})
        for key in (BASE, "0001"):
            for name in stages_of(key):
                run_stage(project, key, name, run_id="r")
    finally:
        STAGES.update(real)
    assert set(ran) == set(STAGES)
    assert_in_closure(ran)


def assert_in_closure(ran):
    code = CodeDigests(REPOSITORY)
    for name, called in ran.items():
        known = set(code.closure(STAGES[name].code))
        assert called - known == set(), name
