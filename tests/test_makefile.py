"""What make does to the folder that $APT_HOME names."""

import os
import shutil
import subprocess

import pytest

from apt_assets.settings.experiment import REPOSITORY


@pytest.mark.parametrize("name", ["home", "two  spaces", "a$HOME", "-", "it's"])
def test_clean_removes_what_was_computed_there_and_nothing_elsewhere(tmp_path, name):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for folder in (name, ".", "spaces"):
        for part in (".apt", "dagster_home/storage", "landing"):
            (tmp_path / folder / part).mkdir(parents=True)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    environment = os.environ | {"APT_HOME": name}
    subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    gone = before - {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert {path.as_posix() for path in gone} == {f"{name}/.apt", f"{name}/dagster_home/storage"}


def test_clean_of_a_folder_that_is_not_there_removes_nothing(tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / ".apt").mkdir()
    environment = os.environ | {"APT_HOME": " "}
    done = subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 2
    assert (tmp_path / ".apt").is_dir()
