import os
from pathlib import Path

import pytest
import yaml

os.environ["HF_HUB_OFFLINE"] = "1"
# The tests run in two processes, and the tiny models are too small for a second thread to help.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """policy/, encoder/ and tasks/, made once."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_policy(folder / "policy")
    tiny.make_encoder(folder / "encoder")
    tiny.make_task(folder / "tasks")
    return folder


@pytest.fixture
def make_experiment(tmp_path, tiny_folder, monkeypatch):
    """A function (**sections) -> path of an experiment on the tiny models, in its own home folder."""
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    monkeypatch.delenv("APT_EXPERIMENT", raising=False)

    def write(**changes) -> Path:
        content = tiny.experiment(tiny_folder)
        for section, values in changes.items():
            content[section] = {**content.get(section, {}), **values}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="session")
def finished(tiny_folder, tmp_path_factory):
    """A project with two promoted iterations, made once: to be read, not changed."""
    from apt_assets.display import Display
    from apt_assets.loop import run_loop
    from apt_assets.project import Project

    home = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_HOME", str(home))
        tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
        content = tiny.experiment(tiny_folder)
        content["policy"]["system_prompt"] = 'Say "one" | colour.'
        (home / "tiny.yaml").write_text(yaml.safe_dump(content))
        project = Project.open(home / "tiny.yaml")
        assert run_loop(project, 2, Display()).passed
    return project
