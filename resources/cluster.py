"""Parts of a job as tasks of a Ray cluster (https://docs.ray.io): placing, retrying and moving them is Ray's.

A task that a worker or a node took down with it is tried again, elsewhere if need be and without end, and results come
to this process alone, which keeps them. Tasks run the code of this process, which Ray carries to the nodes by content.
"""

import os
import pickle
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resources.processor import VARIABLES
from resources.threads import cores
from resources.workers import Job, Results, WorkerLost, timed

UNDER_WAY = 2  # tasks for each place: the next one is there when one ends
LOOK = 5.0  # seconds between two looks at what the cluster has
PATIENCE = 30.0  # seconds without a result until it is asked whether the cluster has what a task wants

_spent: dict[str, float] = {}  # by worker, in processor seconds


def connect(address: str | None, packages: Sequence[Path]) -> None:
    """Be a driver of the cluster, which lasts until this process ends. address: ray://HOST:PORT or HOST:PORT; None: a
    cluster of this machine's own. packages: folders of the code that tasks run. Raises ConnectionError."""
    if address and address.startswith("ray://") and has_token():
        # Ray's client does not show one unless it is told to, and is told when Ray is loaded.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        return
    own: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False} if address is None else {}
    named = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    ray.init(
        address=address or "local",
        runtime_env={
            "py_modules": [str(package) for package in packages],
            "env_vars": {"OMP_NUM_THREADS": "1", **named},
        },
        log_to_driver=False,
        configure_logging=False,
        **own,
    )


def has_token() -> bool:
    """Whether this machine has the token that a cluster asks for, where Ray looks for it."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def each(job: Job, parts: Sequence[Any], wants: Mapping[str, float]) -> Results:
    """(position, what `job` makes of it) of each part as it is ready. wants: of a task, such as {"CPU": 1}. Raises what
    the first part that fails raises, and WorkerLost where the cluster has not what a task wants."""
    import ray

    # Unlimited calls: on GPUs Ray would else end a worker, and what it loaded, after each task.
    task = ray.remote(max_retries=-1, max_calls=0)(timed)
    task = task.options(num_cpus=wants.get("CPU", 0), num_gpus=wants.get("GPU", 0))
    sent, waiting, under_way = ray.put(pickle.dumps(job)), iter(enumerate(parts)), dict[Any, int]()
    heard = time.monotonic()
    try:
        while True:
            while len(under_way) < UNDER_WAY * places(wants) and (part := next(waiting, None)):
                under_way[task.remote(sent, pickle.dumps(part[1]))] = part[0]
            if not under_way:
                return
            ready, _ = ray.wait(list(under_way), num_returns=1, timeout=LOOK)
            if not ready and time.monotonic() - heard > PATIENCE and (lacking := lacks(wants)):
                raise WorkerLost(lacking)
            for reference in ready:
                heard, position = time.monotonic(), under_way.pop(reference)
                yield position, result_of(reference)
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)


def result_of(reference: Any) -> Any:
    """Raises what the task raised."""
    import ray

    try:
        result, process, _spent[process] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise WorkerLost(f"a node cannot be made ready: {error}") from error
    return result


def places(wants: Mapping[str, float]) -> int:
    """How many tasks the cluster can run at once, now; 1 at least."""
    import ray

    there = ray.cluster_resources()
    return max(1, *(int(there.get(name, 0) // number) for name, number in wants.items()))


def lacks(wants: Mapping[str, float], tasks: int = 1) -> str:
    """What so many tasks at once want that the nodes do not have; "" if they have it."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(name, 0) // number) for name, number in wants.items()) for node in nodes)
    if room >= tasks:
        return ""
    wanted = " and ".join(f"{number:g} {name}" for name, number in wants.items())
    has = "; ".join(in_words(node) for node in nodes)
    there = f"its {len(nodes)} nodes have {has}" if nodes else "it has no node"
    if room:
        return f"the cluster has only {room} times {wanted}, which each of {tasks} workers wants; {there}"
    return f"no node of the cluster has {wanted}, which each task wants; {there}"


def in_words(node: Mapping[str, float]) -> str:
    return ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def cpu_seconds() -> float:
    """Processor time of all tasks and trainings of this process so far, with what they loaded."""
    return sum(_spent.values())


def count(worker: str, seconds: float) -> None:
    """Add what a worker has spent by now that is no task's."""
    _spent[worker] = seconds


def node_name() -> str:
    """Of the node that this task runs on: as people and as Ray know it."""
    import ray

    return f"{platform.node()} ({ray.get_runtime_context().get_node_id()[:8]})"
