"""What lies in deploy/ fits together, and says what the code and the pins say.

Whole schemas are asked where their tools are installed (check-jsonschema, kubernetes-validate, shellcheck, hadolint);
docs/guide/cluster.md tells what was tried.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apt_assets.settings.experiment import REPOSITORY
from tests import waiting

DEPLOY = REPOSITORY / "deploy"
PROJECT = (REPOSITORY / "pyproject.toml").read_text()


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def pinned(package: str) -> str:
    """The version that pyproject.toml has of a package."""
    found = re.search(rf'"{re.escape(package)}==([\d.]+)"', PROJECT)
    assert found, f"{package} is not pinned"
    return found[1]


@pytest.fixture
def compose():
    return read("compose.yaml")


# -- dagster.yaml, wherever it is written ----------------------------------------------------------------


def test_dagster_yaml_is_the_repositorys_own_with_postgres_and_nothing_else():
    ours = yaml.safe_load((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
    theirs = read("dagster.yaml")
    assert theirs.pop("storage")["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"
    assert theirs == ours


def test_helm_values_say_of_runs_what_dagster_yaml_says():
    ours, values = read("dagster.yaml"), read("helm-values.yaml")
    pools = ours["concurrency"]["pools"]
    assert values["concurrency"] == {
        "enabled": True,
        "pools": {"granularity": pools["granularity"], "defaultLimit": pools["default_limit"]},
    }
    free = ours["run_monitoring"]["free_slots_after_run_end_seconds"]
    assert values["dagsterDaemon"]["runMonitoring"] == {"enabled": True, "freeSlotsAfterRunEndSeconds": free}
    assert values["postgresql"]["postgresqlScheme"] == ours["storage"]["postgres"]["postgres_db"]["scheme"]
    assert values["telemetry"] == ours["telemetry"]


def test_driver_of_the_helm_values_finds_dagster_yaml_where_apt_assets_looks_for_it():
    values = read("helm-values.yaml")
    (driver,) = values["dagster-user-deployments"]["deployments"]
    assert values["global"]["dagsterHome"] == f"{driver['env']['APT_HOME']}/dagster_home"
    mounted = {mount["name"]: mount["mountPath"] for mount in driver["volumeMounts"]}
    assert mounted[driver["volumes"][0]["name"]] == driver["env"]["APT_HOME"]
    assert values["runLauncher"]["config"]["customRunLauncher"]["class"] == "DefaultRunLauncher"


# -- versions ----------------------------------------------------------------------------------------------


def test_versions_are_those_of_the_pins():
    assert f"torch=={pinned('torch')}" in (DEPLOY / "Dockerfile").read_text()
    assert f"--version {pinned('dagster')} " in (DEPLOY / "helm-values.yaml").read_text()
    if "ray[default]==" in PROJECT:
        assert read("raycluster.yaml")["spec"]["rayVersion"] == pinned("ray[default]")
    tags = re.findall(r"apt-assets:([\d.]+)$|apt-assets, tag: ([\d.]+)", "\n".join(texts()), re.MULTILINE)
    assert {one or other for one, other in tags} == {re.search(r'^version = "(.+)"', PROJECT, re.MULTILINE)[1]}


def texts() -> Iterator[str]:
    for path in DEPLOY.glob("*.yaml"):
        yield re.sub(r"\s+#.*", "", path.read_text())


# -- the image and its services ------------------------------------------------------------------------------


def test_image_copies_what_is_there_and_leaves_nothing_out_that_is_needed():
    copied = re.findall(r"^COPY (\S+) ", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert all((REPOSITORY / name).exists() for name in copied)
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    needed = ("apt_assets", "resources", "schemas", "tasks", "experiments", "deploy", "dagster_home/dagster.yaml")
    for name in needed:
        assert (REPOSITORY / name).exists()
        assert name not in left_out
    assert f"!{needed[-1]}" in left_out


def test_services_have_what_they_name(compose):
    services, volumes = compose["services"], set(compose["volumes"])
    for name, service in services.items():
        for other in service.get("depends_on", ()):
            assert other in services, f"{name} waits for {other}"
        for source, *_ in (mount.split(":") for mount in service["volumes"]):
            assert source in volumes or (DEPLOY / source).exists(), f"{name} mounts {source}"
    (location,) = read("workspace.yaml")["load_from"]
    command = services[location["grpc_server"]["host"]]["command"]
    assert command[command.index("--port") + 1] == str(location["grpc_server"]["port"])
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000"], "the UI has no log-in"


def test_services_set_every_variable_that_dagster_yaml_asks_for(compose):
    db = read("dagster.yaml")["storage"]["postgres"]["postgres_db"]
    asked = {value["env"] for value in db.values() if isinstance(value, dict)}
    for name in ("code", "webserver", "daemon"):
        given = compose["services"][name]["environment"]
        assert asked <= given.keys()
        assert given["APT_POSTGRES_DB"] == compose["services"]["postgres"]["environment"]["POSTGRES_DB"]
        assert given["APT_POSTGRES_USER"] == compose["services"]["postgres"]["environment"]["POSTGRES_USER"]


def test_commands_of_the_services_are_options_that_the_programs_have(compose):
    import click
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import dagster_webserver

    programs = {
        "dagster": create_dagster_cli(),
        "dagster-daemon": create_dagster_daemon_cli(),
        "dagster-webserver": dagster_webserver,
    }
    for name in ("code", "webserver", "daemon"):
        program, *words = compose["services"][name]["command"]
        command = programs[program]
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, name


# -- the job ---------------------------------------------------------------------------------------------------

STUBS = {
    "scontrol": 'printf "node1\\nnode2\\n"',
    "srun": 'echo "srun $*" >> "$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'if [ "$1" = status ]; then grep -q "ray start --head" "$LOG"; else exec sleep 300; fi',
    "apt-assets": """
        until grep -q nodelist=node2 "$LOG"; do sleep 0.05; done
        trap 'echo interrupted >> "$LOG"; exit 130' INT
        echo "$RAY_ADDRESS $*" >> "$LOG"
        while [ -n "$STAY" ]; do sleep 0.1; done
    """,
}


@pytest.fixture
def job(tmp_path):
    """A function (stay) -> the job, begun with stand-ins for Slurm, Ray and apt-assets, which note their arguments."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    begun = []

    def begin(stay):
        environment = {
            **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "RAY_PAUSE": "0.1",
            "APT_HOME": str(tmp_path), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "4", "STAY": stay,
        }  # fmt: skip
        begun.append(subprocess.Popen([DEPLOY / "slurm.sh", "mine.yaml"], env=environment, start_new_session=True))
        return begun[0], tmp_path / "log"

    yield begin
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_job_starts_ray_on_each_node_runs_the_loop_and_ends_as_it_ends(job):
    process, log = job(stay="")
    assert process.wait(60) == 0
    head, *others = log.read_text().splitlines()
    assert "--nodelist=node1 ray start --head --node-ip-address=node1 --port=6379 --num-cpus=4" in head
    run, worker = sorted(others)
    assert run == "node1:6379 run --experiment mine.yaml"
    assert "--nodelist=node2 ray start --address=node1:6379 --num-cpus=4" in worker
    assert not processes_of(process.pid), "nothing of it is left"


def test_job_whose_time_is_up_interrupts_the_loop_and_waits_for_it(job):
    process, log = job(stay="yes")
    waiting.until(lambda: log.exists() and "run --experiment" in log.read_text(), 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert log.read_text().splitlines()[-1] == "interrupted"
    assert not processes_of(process.pid)


def processes_of(session: int) -> list[str]:
    """What still runs in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *rest = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[2]) == session and state != "Z":
            found.append(path.parent.joinpath("cmdline").read_text())
    return found


# -- their own tools, where they are installed ---------------------------------------------------------------------


def require(name: str) -> str:
    found = shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


def test_shell_scripts_are_sound():
    for path in [*DEPLOY.glob("*.sh"), REPOSITORY / ".ci" / "run"]:
        subprocess.run(["bash", "-n", path], check=True)
    subprocess.run([require("shellcheck"), *DEPLOY.glob("*.sh")], check=True)


def test_compose_file_is_one_by_its_schema():
    command = [require("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    subprocess.run(command, check=True)


def test_dockerfile_is_sound():
    subprocess.run([require("hadolint"), DEPLOY / "Dockerfile"], check=True)


def test_pods_of_the_ray_cluster_are_pods_by_kubernetes_schema(tmp_path):
    command, spec = require("kubernetes-validate"), read("raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
        subprocess.run([command, "--strict", tmp_path / "pod.yaml"], check=True)
