"""Which edits count as changed code, on made-up sources; and that nothing a stage runs is overlooked."""

import dataclasses
import sys
import textwrap

import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.stage import STAGES
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.world.code import BOUNDARY, KNOWN_AS, PACKAGES, CodeDigests, inside

# What opens a stage's inputs for it, and decides nothing of what is in them.
MACHINERY = (
    *BOUNDARY, "apt_assets.project", "apt_assets.world", "apt_assets.landing.folder", "apt_assets.promotion",
    "apt_assets.assets.sources",
)  # fmt: skip
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
    "resources/apart.py": "def unused():\n    return 1\n",
    "apt_assets/engine/machinery.py": "def move(): return 1\n",
    "apt_assets/stage.py": """
        from apt_assets.engine.machinery import move, stage
        def work(view):
            return 7
        @stage(group="data", work=work)
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
    return CodeDigests(tree).closure("apt_assets.stage")


def edit(tree, name, old, new):
    path = tree / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_closure_is_the_module_and_all_that_it_imports_but_the_machinery(tree):
    assert set(closure(tree)) == {"apt_assets.stage", "resources.words", "resources.numbers"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("resources/words.py", "  # all of them", "  # each and every one"),
        ("resources/words.py", '"""Clean it."""', '"""Take the x away."""'),
        ("resources/words.py", '"""Clean it."""\n', "\n"),
        ("resources/words.py", 'PATTERN.sub("", text)', 'PATTERN.sub(\n        "",\n        text,\n    )'),
        ("resources/apart.py", "return 1", "return 2"),
        ("apt_assets/stage.py", 'group="data"', 'group="mining"'),
        ("apt_assets/stage.py", "return 7", "return 8"),
        ("apt_assets/engine/machinery.py", "return 1", "return 2"),
    ],
)
def test_comment_docstring_layout_unrelated_declaring_or_machinery_edit_changes_nothing(tree, name, old, new):
    before = closure(tree)
    edit(tree, name, old, new)
    assert closure(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("resources/words.py", 'sub("",', 'sub(" ",', "resources.words"),
        ("resources/words.py", 'compile("x")', 'compile("y")', "resources.words"),
        ("resources/numbers.py", "LIMIT = 3", "LIMIT = 4", "resources.numbers"),
        ("resources/words.py", "< LIMIT", "<= LIMIT", "resources.words"),
        ("resources/numbers.py", "LIMIT = 3", "LIMIT = 3\nprint(1)", "resources.numbers"),
        ("resources/__init__.py", "", "import os\nos.umask(0)", "resources"),
        ("resources/words.py", "return 1", "return 2", "resources.words"),
    ],
)
def test_edit_of_anything_reachable_changes_exactly_its_module(tree, name, old, new, changed):
    before = closure(tree)
    if old:
        edit(tree, name, old, new)
    else:
        (tree / name).write_text(new)
    after = closure(tree)
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == {changed}


def test_module_that_moved_and_is_known_by_its_former_name_changes_nothing(tree, monkeypatch):
    before = closure(tree)
    (tree / "resources/text").mkdir()
    (tree / "resources/text/__init__.py").write_text('"""Texts."""\n')
    (tree / "resources/words.py").rename(tree / "resources/text/words.py")
    edit(tree, "apt_assets/stage.py", "from resources.words", "from resources.text.words")
    assert closure(tree) != before
    monkeypatch.setitem(KNOWN_AS, "resources.text.words", "resources.words")
    assert closure(tree) == before
    assert CodeDigests(tree).files("apt_assets.stage")[-1] == "resources/text/words.py"


def test_import_of_another_module_in_place_of_one_is_a_change(tree):
    (tree / "resources/others.py").write_text("LIMIT = 3\n")
    (tree / "resources/numbers.py").write_text("LIMIT = 3\n")
    before = closure(tree)
    edit(tree, "resources/words.py", "from resources.numbers import", "from resources.others import")
    assert closure(tree) != before


def test_refresh_notices_an_edit_and_memory_of_other_sources_is_not_used(tree):
    memory = tree / "code.json"
    digests = CodeDigests(tree, memory)
    before = digests.closure("apt_assets.stage")
    assert CodeDigests(tree, memory).closure("apt_assets.stage") == before
    edit(tree, "resources/numbers.py", "LIMIT = 3", "LIMIT = 4")
    digests.refresh()
    assert digests.closure("apt_assets.stage") != before
    assert CodeDigests(tree, memory).closure("apt_assets.stage") == digests.closure("apt_assets.stage")


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
            ours = inside(module, PACKAGES) and not inside(module, MACHINERY) and not inside(called_by, MACHINERY)
            # A function made inside another one is part of it.
            if event == "call" and ours and owner(frame)[1][0] not in "<_":
                called.add(module)

        sys.setprofile(profile)
        try:
            stage.compute(step)
        finally:
            sys.setprofile(None)

    return dataclasses.replace(stage, compute=compute)


@pytest.mark.slow("loop")
def test_every_function_that_a_stage_runs_is_in_its_closure(make_experiment, tmp_path):
    """The whole loop under a tracer: what is called between a stage's begin and end must be in the
    digest of the stage's code, or belong to the machinery."""
    from apt_assets.engine.execute import run_stage
    from apt_assets.engine.plan import stages_of
    from apt_assets.project import Project
    from apt_assets.settings.iterations import BASE
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import move, stage", "import move, stage, Plot"),
        (
            "\nfrom apt_assets.engine.machinery",
            "\nfrom apt_assets.drawing import plots\nfrom apt_assets.engine.machinery",
        ),
    ],
)
def test_import_from_the_machinery_for_a_declaration_only_changes_nothing(tree, old, new):
    before = closure(tree)
    edit(tree, "apt_assets/stage.py", old, new)
    edit(tree, "apt_assets/stage.py", "work=work", "work=work, plots=[Plot(plots)]")
    assert closure(tree) == before


def test_import_of_something_else_from_the_machinery_that_is_used_is_a_change(tree):
    before = closure(tree)
    edit(tree, "apt_assets/stage.py", "import move, stage", "import other as move, stage")
    assert closure(tree) != before
