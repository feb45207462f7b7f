"""How commands end: one line and an exit code, whatever the machine, the terminal or the user does."""

import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.orchestration.ui import require_free
from apt_assets.report.ending import ends, of_the_machine
from apt_assets.report.interrupts import LINES
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import file_to_write, find_home, load_experiment, path_of
from tests import tiny

APT = [sys.executable, "-m", "apt_assets.cli"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An experiment on model folders that hold next to nothing: good for every command that only looks."""
    tiny.make_husks(tmp_path)
    tiny.make_task(tmp_path / "tasks")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tiny.experiment(tmp_path)))
    monkeypatch.setenv("APT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APT_EXPERIMENT", str(path))
    return tmp_path


def said(error: BaseException, capsys) -> tuple[int, str]:
    code = ends(error)
    return code, capsys.readouterr().err


def called(*arguments):
    """In this process: (exit code, what was raised, what was printed)."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.exception, result.output


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "error: /a/b: Permission denied\n"),
        (FileExistsError(errno.EEXIST, "File exists", "/a/b"), "error: /a/b: is there, and is no folder\n"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), "error: /a/b: leads through a file"),
        (OSError(errno.ENOSPC, "No space left", "/from", None, "/to"), "error: /to: No space left on device\n"),
        (RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)"), "No space left on device"),
        (UsageError("x: not so"), "error: x: not so\n"),
    ],
)
def test_error_that_people_can_act_on_is_one_line_and_exit_code_2(error, line, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    code, text = said(error, capsys)
    assert code == 2
    assert line in text
    assert text.count("\n") == 1


def test_write_that_names_no_file_is_told_with_the_home(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    assert said(OSError(errno.ENOSPC, "x"), capsys)[1] == f"error: {tmp_path}: No space left on device\n"


def test_bug_says_that_it_is_one_before_its_traceback(capsys):
    try:
        {}["x"]
    except KeyError as error:
        code, text = said(error, capsys)
    assert code == 1
    assert text.startswith("error: a bug of apt-assets, please report it with what follows: KeyError: 'x'\nTraceback")


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), TimeoutError(110, "late"), OSError("hub")])
def test_server_that_does_not_answer_is_not_taken_for_the_machine(error):
    assert of_the_machine(error) is None


def test_error_behind_another_one_is_found(tmp_path):
    error = RuntimeError("cannot load")
    error.__cause__ = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path))
    assert of_the_machine(error) == f"{tmp_path}: No such file or directory"


# -- what people name ---------------------------------------------------------------------------------------


def test_home_that_is_a_file_is_refused_and_a_tilde_is_a_home_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("APT_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"\$APT_HOME: .*file: is no folder"):
        find_home()
    for name in ("what?", "a%41"):
        monkeypatch.setenv("APT_HOME", str(tmp_path / name))
        with pytest.raises(UsageError, match="Dagster's records cannot have"):
            find_home()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APT_HOME", "~/apt")
    assert find_home() == tmp_path / "apt"


def test_path_without_a_meaning_names_who_named_it(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for named, says in (("~nobody-here/x", "no home folder"), (tmp_path / "one", "circle"), ("\udcff.yaml", "UTF-8")):
        with pytest.raises(UsageError, match=f"^--out: .*{says}"):
            path_of(named, "--out")


def test_file_is_written_through_a_link_and_not_onto_a_device_or_a_folder(tmp_path):
    (tmp_path / "link.html").symlink_to("real.html")
    assert file_to_write(tmp_path / "link.html") == tmp_path / "real.html"  # not there yet
    (tmp_path / "folder").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    for named, says in (
        ("/dev/null", "is a pipe or a device"),
        (tmp_path / "pipe", "is a pipe or a device"),
        (tmp_path / "folder", "name a file in a folder that is there"),
        (tmp_path / "none" / "x.html", "name a file in a folder that is there"),
    ):
        with pytest.raises(UsageError, match=says):
            file_to_write(named)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "is a folder; name a file"), (b"\x00\xff", "not readable as YAML"), (b"", "must be a mapping")],
)
def test_experiment_that_is_no_text_file_is_one_line(tmp_path, content, says):
    path = tmp_path / "x.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        load_experiment(path)


def test_device_is_not_read_as_an_experiment():
    from pathlib import Path

    with pytest.raises(UsageError, match="is a device; name a file"):
        load_experiment(Path("/dev/zero"))


def test_study_file_given_as_an_experiment_is_called_one(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ndomains: {a: b.yaml}\narms: {x: {}, y: {}}\n")
    with pytest.raises(UsageError, match="is a study file: `apt-assets study"):
        load_experiment(path)


# -- the command line -----------------------------------------------------------------------------------------


def test_every_command_has_a_short_help_and_the_program_a_version():
    for command in ("run", "plan", "explain", "gc", "status", "land", "show", "report", "export", "study", "ui"):
        assert called(command, "-h")[0] == 0, command
    assert called("--version")[2].startswith("apt-assets 0.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "three"], "iterations: give a number from 1 to 9999, such as 3; got 'three'"),
        (["plan", "0"], "iterations: give a number"),
        (["plan", "99999999"], "iterations: give a number"),
        (["run", "bad_cases"], "--force bad_cases"),
        (["run", "3", "--iterations", "2"], "3 and --iterations 2 were both given"),
        (["explain", "polcy", "1"], "'polcy' is not a stage of 0001 (did you mean policy?)"),
    ],
)
def test_wrong_word_is_told_with_what_was_perhaps_meant(folders, arguments, says):
    code, raised, _ = called(*arguments)
    assert (code, says in str(raised)) == (1, True), raised  # main() makes it 2


def test_number_of_iterations_needs_no_option(folders):
    with_option, without = called("plan", "--iterations", "2", "--json"), called("plan", "2", "--json")
    assert without[0] == 0
    assert without[2] == with_option[2]
    assert {entry["iteration"] for entry in json.loads(without[2])} == {"base", "0001", "0002"}


def test_what_only_looks_downloads_nothing_and_plan_says_what_a_run_would(folders, monkeypatch):
    from resources.demo import downloads

    monkeypatch.setattr(downloads, "prepare", lambda cache: pytest.fail("downloads"))
    content = yaml.safe_load((folders / "mine.yaml").read_text())
    content["policy"]["model"] = content["retrieval"]["encoder"] = "embedded"
    (folders / "mine.yaml").write_text(yaml.safe_dump(content))
    for command in (["status"], ["explain", "policy", "1"], ["report", folders / "r.html"], ["gc", "--dry-run"]):
        assert called(*command)[0] == 0, command
    code, _, output = called("plan")
    assert (code, "downloads first: embedded" in output) == (0, True)


def test_model_of_the_hub_is_looked_for_on_this_machine_only(folders, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetch(named, *, local_files_only, **_):
        assert local_files_only
        raise LocalEntryNotFoundError(named)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    content = yaml.safe_load((folders / "mine.yaml").read_text())
    content["policy"]["model"] = "someone/model"
    (folders / "mine.yaml").write_text(yaml.safe_dump(content))
    code, _, output = called("plan")
    assert (code, "downloads first: someone/model" in output) == (0, True)


def test_file_where_a_folder_should_be_is_one_line(folders, capsys):
    (folders / "home").mkdir()
    (folders / "home" / "landing").touch()
    data = tiny.write_jsonl(folders / "c.jsonl", tiny.domain_rows(5))
    assert called("land", data, "-e", folders / "mine.yaml")[0] == 2
    (folders / "home" / ".apt").touch()
    assert called("status")[0] == 2


def test_memory_of_digests_that_cannot_be_written_is_done_without(folders, monkeypatch):
    from resources.store import sealed

    def full(path, about, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(sealed, "write_sealed", full)
    assert called("status")[0] == 0


def test_copy_that_the_disk_had_no_room_for_leaves_nothing_in_the_landing_folder(tmp_path, monkeypatch):
    import shutil

    from apt_assets.landing.land import land_files

    def half(source, target):
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OSError, match="No space"):
        land_files([tiny.write_jsonl(tmp_path / "c.jsonl", tiny.domain_rows(5))], tmp_path / "landing")
    assert list((tmp_path / "landing").iterdir()) == []


# -- terminals: real processes ----------------------------------------------------------------------------------


@pytest.mark.slow("processes")
def test_text_that_the_terminal_cannot_show_is_escaped_and_json_stays_json(folders, monkeypatch):
    data = folders / "zh.jsonl"
    data.write_text('{"prompt": "天空 \\ud83d\\ude00 é"}\n{"prompt": "a", "answer": "b"}\n')
    for encoding in ("ascii", "latin-1"):
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        shown = subprocess.run([*APT, "land", data], capture_output=True, cwd=folders)
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert b"\\u5929\\u7a7a" in shown.stdout.replace(b"\n", b"").replace(b" ", b"")
        as_json = subprocess.run([*APT, "land", data, "--json"], capture_output=True, cwd=folders)
        assert "天空" in json.loads(as_json.stdout)[0]["bad"][0]["raw"]


def test_name_that_is_no_text_is_escaped(folders):
    result = subprocess.run([*APT, "land", b"\xff.jsonl"], capture_output=True, cwd=folders)
    assert (result.returncode, result.stderr) == (2, b"error: \\udcff.jsonl: no such file or folder\n")


@pytest.mark.slow("processes")
def test_output_that_nobody_reads_ends_the_command_without_a_word(folders):
    for arguments in (["status"], ["plan", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        result = subprocess.run([*APT, *arguments], stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (result.returncode, result.stderr) == (141, b""), arguments


@pytest.mark.slow("processes")
def test_output_that_is_closed_or_full_is_no_traceback(folders):
    closed = subprocess.run(["/bin/sh", "-c", '"$@" >&- 2>&-', "sh", *APT, "status"])
    assert closed.returncode == 0
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        result = subprocess.run([*APT, "plan", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in result.stderr


def test_port_that_is_in_use_is_said_before_anything_is_started(folders):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"^port {port} is in use: name another with --port"):
            require_free(port)
        code, raised, _ = called("ui", "--port", port)
    assert (code, isinstance(raised, UsageError)) == (1, True)
    assert not (folders / "home" / "dagster_home").exists()
    require_free(port)


@pytest.mark.slow("processes")
def test_ctrl_c_while_the_program_is_loaded_is_one_line(folders, monkeypatch):
    # A module that is imported late, and takes its time.
    (folders / "slow").mkdir()
    (folders / "slow" / "typer.py").write_text("import time, sys\nprint('loading', flush=True)\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{folders / 'slow'}:{os.environ.get('PYTHONPATH', '')}")
    process = subprocess.Popen([*APT, "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == f"{LINES[0]}\n"
    assert process.returncode == 130


PROGRAM = """
import sys, time
from apt_assets.report.ending import run_program

def lose_it():
    class Lost:
        def __del__(self):
            print("ready", flush=True)
            time.sleep(60)
    Lost()
    while True:
        time.sleep(0.1)

def catch_all():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def wait():
    print("ready", flush=True)
    time.sleep(60)

sys.exit(run_program({"lose_it": lose_it, "catch_all": catch_all, "wait": wait}[sys.argv[1]]))
"""


@pytest.mark.slow("processes")
@pytest.mark.parametrize("what", ["wait", "lose_it", "catch_all"])
def test_ctrl_c_ends_a_program_with_one_line_though_its_error_gets_lost(what):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].decode() == f"{LINES[0]}\n"
    assert process.returncode == 130
    assert time.monotonic() - began < 15


@pytest.mark.slow("processes")
def test_ctrl_c_that_was_switched_off_stays_so():
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", PROGRAM, "wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.kill()
    process.communicate()


# -- Dagster's history ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("database is locked", "another program holds it"),
        ("database disk image is malformed", "move that folder away"),
        ("database or disk is full", "has room"),
        ("attempt to write a readonly database", "may write there"),
        ("disk I/O error", "has room"),
    ],
)
def test_what_sqlite_says_is_told_with_a_way_out(folders, reason, says):
    from apt_assets.orchestration.instance import readable_history
    from apt_assets.project import Project

    project = Project.open()
    match = f"{project.dagster_home / 'history'}: .*{reason}; .*{says}"
    with pytest.raises(UsageError, match=match), readable_history(project):
        raise sqlite3.OperationalError(reason)


def test_history_that_is_no_database_is_named_and_made_anew_once_it_is_moved_away(ended):
    from apt_assets.engine.display import Display
    from apt_assets.orchestration.instance import Dagster

    history = ended.project.dagster_home / "history"
    for path in history.rglob("index.db*"):
        path.write_bytes(b"garbage" * 1000)
    with pytest.raises(UsageError, match=r"history: .*move that folder away"):
        Dagster(ended.project, Display()).settle()
    history.rename(history.with_name("old"))
    Dagster(ended.project, Display()).settle()


@pytest.mark.slow("loop")
def test_full_disk_in_a_stage_is_told_as_such_and_nothing_of_the_stage_counts(make_experiment, tmp_path, monkeypatch):
    from apt_assets.engine.display import Display
    from apt_assets.landing.land import land_files
    from apt_assets.orchestration.run import run_loop
    from apt_assets.project import Project

    project = Project.open(make_experiment())
    land_files([tiny.write_jsonl(tmp_path / "c.jsonl", tiny.domain_rows(40))], project.landing)

    def full(self, workspace, **known):
        raise OSError(errno.ENOSPC, "No space left on device", str(workspace))

    with monkeypatch.context() as patch:
        patch.setattr(type(project.store), "commit", full)
        with pytest.raises(UsageError, match=r"temporary.*: No space left on device"):
            run_loop(project, 1, Display())
    assert not [plan for plan in project.planner().plan(1) if plan.status == "fresh"]
    assert list((tmp_path / ".apt" / "store" / "temporary").iterdir()) == []
