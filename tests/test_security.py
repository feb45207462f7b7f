"""What SECURITY.md promises: no pickles, no code of a model folder, keys that stay in the environment, loopback."""

import json
import os
import pickle
import pickletools
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.engine.display import Display
from apt_assets.orchestration import ui
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.world.models import PICKLED
from resources.model import http
from tests import tiny
from tests.fake_endpoint import always, serve

# -- pickles -----------------------------------------------------------------------------------------------

# Run before anything else is imported. What only makes bytes in memory stays: jinja2 marks its caches with a
# pickled version number, datasets names its own by a digest of a pickle. Neither is kept or read.
FORBID = """
import pickle, sys
def refuse(name):
    def refused(*arguments, **named):
        raise AssertionError(f"{name} was called")
    return refused
for name in ("load", "loads", "dump"):
    setattr(pickle, name, refuse(f"pickle.{name}"))
for name in ("Unpickler", "_Unpickler"):  # libraries make classes of them
    setattr(pickle, name, type(name, (getattr(pickle, name),), {"__init__": refuse(f"pickle.{name}")}))
import dill, joblib, torch
for module in (dill, joblib, torch):
    for name in ("load", "loads", "save", "dump"):
        if hasattr(module, name) and not (module is dill and name == "dump"):
            setattr(module, name, refuse(f"{module.__name__}.{name}"))
"""


def is_pickle(content: bytes) -> bool:
    """Whether a pickle of protocol 2 or later begins here, and is one to its end."""
    if not re.match(rb"\x80[\x02-\x05]", content):
        return False
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(content))
    except ValueError:
        return False


def pickles_in(folder: Path) -> list[str]:
    """Files that are pickles by name or by content; torch's are zip files with a data.pkl."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        zipped = zipfile.is_zipfile(path) and any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
        if path.suffix in PICKLED or zipped or is_pickle(content):
            found.append(str(path.relative_to(folder)))
    return sorted(found)


def test_no_file_below_the_home_of_a_finished_project_is_a_pickle(finished, tmp_path):
    assert (finished / "dagster_home").is_dir(), "Dagster's own storage is looked at as well"
    assert pickles_in(finished) == []


def test_each_kind_of_pickle_would_be_found(tmp_path):
    import torch

    (tmp_path / "plain").write_bytes(pickle.dumps({"a": [1, 2]}))
    (tmp_path / "old").write_bytes(pickle.dumps({"a": [1, 2]}, protocol=2))
    (tmp_path / "weights.bin").write_bytes(b"")
    torch.save({"a": torch.zeros(1)}, tmp_path / "zipped")
    (tmp_path / "text").write_text("no pickle")
    assert pickles_in(tmp_path) == ["old", "plain", "weights.bin", "zipped"]


@pytest.mark.slow("loop")
def test_two_iterations_run_where_every_function_that_reads_or_writes_a_file_of_pickles_raises(tiny_folder, tmp_path):
    tiny.land_hostile(tmp_path)
    loop = f"""
from pathlib import Path
from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from tests import tiny
home, folder = Path({str(tmp_path)!r}), Path({str(tiny_folder)!r})
print(run_loop(tiny.open_project(home, folder), 2, Display()).reason)
"""
    done = subprocess.run([sys.executable, "-c", FORBID + loop], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "all of the iterations up to 0002 are up to date", done.stderr[-3000:]


@pytest.mark.slow("processes")
def test_forbidden_functions_do_raise_there():
    calls = ("pickle.loads(b'')", "pickle.Unpickler(None)", "torch.load('x')", "joblib.load('x')", "dill.loads(b'')")
    tried = "".join(f"\ntry: {call}\nexcept AssertionError as error: print(error)" for call in calls)
    done = subprocess.run([sys.executable, "-c", FORBID + tried], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{call.partition('(')[0]} was called" for call in calls], done.stderr


# -- folders of models -------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path, tiny_folder, make_experiment, monkeypatch):
    """A function (setting, prepare) -> a project whose model or encoder is a copy that `prepare` changed.

    torch.load raises; `ran` is what code of the folder would write.
    """
    import torch

    monkeypatch.setattr(torch, "load", lambda *arguments, **named: pytest.fail("torch.load was called"))

    def make(setting: str, prepare) -> Project:
        section, key = setting.split(".")
        source = {"policy.model": "policy", "retrieval.encoder": "encoder"}[setting]
        folder = Path(shutil.copytree(tiny_folder / source, tmp_path / "planted"))
        prepare(folder)
        return Project.open(make_experiment(**{section: {key: str(folder)}}))

    return make


def as_pickle(name):
    def prepare(folder):
        import torch
        from safetensors.torch import load_file

        (file,) = folder.rglob("model.safetensors")
        torch.save(load_file(file), file.with_name(name))
        file.unlink()

    return prepare


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize(("setting", "folder"), [("policy.model", "base_model"), ("retrieval.encoder", "encoder")])
def test_model_that_is_there_as_a_pickle_only_is_refused_before_it_is_read(planted, setting, folder, name):
    project = planted(setting, as_pickle(name))
    with pytest.raises(UsageError, match=rf"{setting}: .*may run code .*{name}.*safetensors"):
        getattr(project.models, folder)


def test_part_of_an_encoder_that_is_there_as_a_pickle_only_is_refused(planted):
    def prepare(folder):
        (folder / "2_Dense").mkdir()
        (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps({}))

    with pytest.raises(UsageError, match=r"2_Dense/pytorch_model\.bin"):
        _ = planted("retrieval.encoder", prepare).models.encoder


def test_folder_without_weights_is_refused(planted):
    project = planted("policy.model", lambda folder: (folder / "model.safetensors").unlink())
    with pytest.raises(UsageError, match=r"policy\.model: no safetensors in"):
        _ = project.models.base_model


def test_pickle_beside_safetensors_is_left_alone(planted):
    from resources.model.policy import load_policy

    def prepare(folder):
        (folder / "pytorch_model.bin").write_bytes(b"the same weights once more, never read")

    assert load_policy(planted("policy.model", prepare).models.base_model, dtype="float32").model is not None


def code_in(folder: Path, module: str) -> Path:
    """Put a module into the folder that writes a file when it is imported; returns that file."""
    ran = folder.parent / "ran"
    classes = "".join(f"class {name}: pass\n" for name in ("Config", "Model", "Tokenizer", "Pooling"))
    (folder / f"{module}.py").write_text(f"open({str(ran)!r}, 'w').close()\n{classes}")
    return ran


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["llama", "one_of_its_own"])
def test_code_of_a_model_folder_is_never_run(planted, tmp_path, kind):
    from resources.model.capabilities import skeleton
    from resources.model.policy import load_policy, load_tokenizer

    def prepare(folder):
        code_in(folder, "evil")
        classes = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        change_json(folder / "config.json", auto_map=classes, model_type=kind)
        change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]})

    folder = planted("policy.model", prepare).models.base_model
    # A kind that the library knows is loaded by the library's own code; another one is refused.
    for load in (lambda folder: load_policy(folder, dtype="float32"), skeleton):
        with nullcontext() if kind == "llama" else pytest.raises(ValueError, match="trust_remote_code"):
            load(folder)
    with suppress(ValueError):
        load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_an_encoder_folder_is_never_run(planted, tmp_path):
    from resources.retrieval.encoder import Encoder

    def prepare(folder):
        code_in(folder, "evil")
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = "evil.Pooling"
        (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ValueError, match="trust_remote_code"):
        Encoder(planted("retrieval.encoder", prepare).models.encoder)
    assert not (tmp_path / "ran").exists()


def test_neither_code_nor_pickles_are_fetched_from_the_hub(make_experiment, tmp_path, tiny_folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    def fetch(named, *, revision, allow_patterns, ignore_patterns, local_files_only):
        assert not local_files_only
        there = ["model.safetensors", "config.json", "pytorch_model.bin", "modeling_x.py", "a/b.bin", "x.pt", "x.pkl"]
        there += ["consolidated.safetensors", "x.ckpt", "a/x.pickle", "x.pth", "tokenizer.model"]
        kept = filter_repo_objects(there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        assert list(kept) == ["model.safetensors", "config.json", "tokenizer.model"]
        return str(tiny_folder / "policy")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert Project.open(make_experiment(policy={"model": "someone/model"})).models.base_model == tiny_folder / "policy"


# -- keys --------------------------------------------------------------------------------------------------

KEY = "sk-PLANTED0123456789abcdefABCDEF"


def places_of(key: str, folder: Path) -> list[str]:
    """Files below a folder that hold the key, or half of it."""
    halves = key[: len(key) // 2].encode(), key[len(key) // 2 :].encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if any(half in path.read_bytes() for half in halves)]


def run_and_report(project: Project, capfd) -> str:
    """Run an iteration with its report written below the home; returns all that was said."""
    from apt_assets.report.page import write_report

    try:
        said = run_loop(project, 1, Display()).reason
    except Exception as error:
        said = repr(error)
    write_report(project, project.home / "report.html")
    out, err = capfd.readouterr()
    return f"{said}\n{out}\n{err}"


def graded_by(make_experiment, url):
    rubric = {
        "endpoint": url,
        "model": "m",
        "requests_per_minute": None,
        "key_variable": "GRADER_KEY",
        "max_attempts": 2,
    }
    return Project.open(make_experiment(assessor={"kind": "rubric", "rubric": rubric}))


REPLIES = {
    "graded": None,
    "401": (401, {}, f"Incorrect API key provided: {KEY}"),
    "400": (400, {}, "x" * 290 + f"Authorization: Bearer {KEY}"),
    "500": (500, {}, f"Traceback: headers = {{'Authorization': 'Bearer {KEY}'}}"),
    "no completion": (200, {}, json.dumps({"error": f"Bearer {KEY}"})),
}


@pytest.mark.slow("loop")
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_key_of_a_grader_is_sent_and_written_nowhere(reply, make_experiment, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("GRADER_KEY", KEY + "\n")  # as `export GRADER_KEY="$(cat file)"` with Windows' line ends may
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(30))
    with serve(always(5) if reply is None else lambda body: reply) as server:
        said = run_and_report(graded_by(make_experiment, server.url), capfd)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY[:16] not in said
    assert places_of(KEY, tmp_path) == []


class Elsewhere(BaseHTTPRequestHandler):
    """Notes the key of whoever comes."""

    def do_GET(self):
        self.server.seen.append(self.headers["Authorization"])
        self.send_response(404)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


class Talkative(Elsewhere):
    """Answers with a status and says the request's headers; redirects to another host if it is told one."""

    def do_GET(self):
        self.server.seen.append(self.headers["Authorization"])
        body = ("x" * 285 + str(self.headers)).encode()
        self.send_response(self.server.status, f"refused {self.headers['Authorization']}")
        if self.server.status == 307:
            self.send_header("Location", self.server.elsewhere + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


@pytest.fixture
def listen():
    """A function (handler) -> a server that runs until the test ends."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.seen = []
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow("loop")
@pytest.mark.parametrize("status", [401, 400, 500, 307])
def test_key_of_a_policy_s_server_is_written_nowhere_and_sent_to_no_other_host(
    status, listen, make_experiment, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("APT_SERVER_KEY", KEY)
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(30))
    there, elsewhere = listen(Talkative), listen(Elsewhere)
    there.status, there.elsewhere = status, f"http://localhost:{elsewhere.server_port}"
    url = f"http://127.0.0.1:{there.server_port}/v1"
    said = run_and_report(Project.open(make_experiment(policy={"backend": "openai", "server": {"url": url}})), capfd)
    assert set(there.seen) == {f"Bearer {KEY}"}
    assert elsewhere.seen == []
    assert f"{url}/models: {status} refused" in said
    assert KEY[:16] not in said
    assert places_of(KEY, tmp_path) == []


@pytest.mark.slow("loop")
def test_key_that_cannot_be_sent_is_not_quoted(listen, make_experiment, tmp_path, capfd, monkeypatch):
    """http.client names the whole header in its error."""
    monkeypatch.setenv("APT_SERVER_KEY", f"{KEY}\nsecond line")
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(30))
    url = f"http://127.0.0.1:{listen(Elsewhere).server_port}/v1"
    said = run_and_report(Project.open(make_experiment(policy={"backend": "openai", "server": {"url": url}})), capfd)
    assert "the key in $APT_SERVER_KEY holds white space" in said
    assert KEY[:16] not in said
    assert places_of(KEY, tmp_path) == []


# -- the UI ------------------------------------------------------------------------------------------------


def test_ui_listens_on_this_machine_only(project, finished, monkeypatch):
    started = []
    monkeypatch.setenv("APT_HOME", str(finished))
    for name in ("APT_EXPERIMENT", "APT_WATCH", "DAGSTER_HOME", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # the command sets them; put back afterwards
    monkeypatch.setattr(ui, "passed_on", lambda command: started.append(command) or 0)
    done = CliRunner().invoke(app, ["ui", "--experiment", str(finished / "tiny.yaml"), "--port", "3999"])
    assert done.exit_code == 0, done.output
    (arguments,) = started
    assert arguments[1:6] == ["dev", "--host", "127.0.0.1", "--port", "3999"]


# -- dependencies ------------------------------------------------------------------------------------------


def test_lock_has_the_versions_that_pyproject_pins_each_with_a_hash_and_no_torch():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["docs"],
    ]
    pinned = dict(found.groups() for one in wanted if (found := re.match(r"([\w-]+)(?:\[\w+\])?==(\S+)$", one)))
    lock = (REPOSITORY / "requirements.lock").read_text()
    locked = {}
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        name, version = re.match(r"([\w.-]+)==(\S+) \\\n", entry).groups()
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name
        locked[name.replace("-", "_")] = version
    torch = pinned.pop("torch")
    assert f"TORCH := torch=={torch}\n" in (REPOSITORY / "Makefile").read_text()
    assert {name: locked.get(name.replace("-", "_")) for name in pinned} == pinned
    assert len(pinned) > 15
    assert not [name for name in locked if name.startswith(("torch", "nvidia", "cuda", "triton"))]
    assert not re.search(r"^-|file:|https?:|@", lock, re.MULTILINE), "no path and no private index"
