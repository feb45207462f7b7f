"""Where rows are computed: in this process, by as many workers of one thread as it has threads, or on a Ray cluster.

Only this process keeps rows. What a worker gets is a RowScope, items, and a function of a module; what it gives are
values, which do not depend on which worker computed them, or among which others: rows go to workers only where the
trial of their model found that (world/execution.py).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from apt_assets.engine.job import Job
from apt_assets.engine.nodes import for_nodes, package_folders
from apt_assets.engine.scope import RowScope, SentScope
from apt_assets.settings.experiment import UsageError
from apt_assets.world.execution import Execution
from resources import cluster, workers
from resources.model.device_memory import free_memory
from resources.store.rows import Batches, Value
from resources.threads import threads

Item = TypeVar("Item")

TASK_ROWS = 128  # at most, in one task: what is lost where a worker is
LEAST_ROWS = 16
# Rows that one process answers in a second, times the bytes of the weights: the embedded model on two cores, nearly
# (`python -m benchmarks.workers`).
BYTES_A_SECOND = 1.5e10
# From so much work on, in seconds of this process, there are workers. Answers of theirs begin after 4 to 5 s, and are
# then as fast as by threads on quiet cores (`python -m benchmarks.workers`).
WORTH_SECONDS = 40.0


def spread(
    compute: Callable[[RowScope, Sequence[Item]], Batches[Value]], scope: RowScope, items: Sequence[Item]
) -> Batches[Value]:
    """What `compute(scope, items)` yields, in batches of another size where workers compute it. compute: of a module,
    or a partial of one; what it takes and gives can be sent to another process.

    Raises what it raises, and UsageError if workers cannot go on."""
    sent, each = scope.sent(), None
    if sent.experiment.compute.engine == "ray" and executions(sent):
        if same_elsewhere(sent):
            wants = wants_of(sent.experiment.policy.device)
            connect(sent.experiment.compute.address, "compute.engine: ray")
            number = cluster.places(wants)
            each = partial(cluster.each, for_nodes(compute, scope, sent), wants=wants)
        else:
            scope.tell(f"{scope.kind.name}: on this machine, since another process may round a row otherwise")
    elif (number := workers_for(scope, sent, len(items))) > 1:
        each = partial(workers.each, number, Job(compute, sent))
    if each is None:
        yield from compute(scope, items)
        return
    from resources.model.held import let_go

    let_go()  # the workers hold models of their own
    size = max(min(-(-len(items) // (2 * number)), TASK_ROWS), LEAST_ROWS)
    parts = [range(start, min(start + size, len(items))) for start in range(0, len(items), size)]
    try:
        with closing(each([[items[place] for place in part] for part in parts])) as found:
            for part, (values, lines) in found:
                for line in lines:
                    scope.tell(line)
                yield parts[part], values
    except workers.WorkerLost as error:
        raise UsageError(f"{scope.kind.name}: {error}") from error


def executions(sent: SentScope) -> list[Execution]:
    """How the models run that compute these rows, as their trials found; none of what is not tried."""
    return [its for its in sent.found.values() if isinstance(its, Execution)]


def same_elsewhere(sent: SentScope) -> bool:
    """Whether a process of its own gives the same rows."""
    found = executions(sent)
    return bool(found) and all(its.alone for its in found)


def wants_of(device: str, threads: int = 1) -> dict[str, float]:
    """What a task of so many threads takes up of a cluster."""
    return {"CPU": threads, "GPU": 1} if device == "cuda" else {"CPU": threads}


def connect(address: str | None, setting: str) -> None:
    """Be a driver of the cluster. setting: by which it is wanted. Raises UsageError if there is none to be had."""
    try:
        cluster.connect(address, [*package_folders().values()])
    except ModuleNotFoundError:
        raise UsageError(f"{setting} needs Ray: pip install 'apt-assets[cluster]'") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"compute.address: no Ray cluster at {address}: {str(error).splitlines()[0]}") from None


def workers_for(scope: RowScope, sent: SentScope, rows: int) -> int:
    """How many workers are to compute so many rows; 1: this process is. Those that are running are used."""
    policy = sent.experiment.policy
    if policy.device != "cpu" or not same_elsewhere(sent):
        return 1
    if workers.running():
        return workers.running()
    seconds = rows * sum(weights(its) for its in sent.found.values() if isinstance(its, Path)) / BYTES_A_SECOND
    return most_workers(policy, scope.memory) if seconds > WORTH_SECONDS else 1


def most_workers(policy: Any, need: int | None) -> int:
    """As many as there are threads, on a CPU, and as fit into its memory where each needs so many bytes."""
    if policy.device != "cpu":
        return 1
    free = free_memory("cpu")
    fit = threads(policy.threads) if need is None or free is None else free // need
    return max(min(threads(policy.threads), fit), 1)


def weights(model: Path) -> int:
    """Bytes of the files that hold them."""
    return sum(path.stat().st_size for path in model.rglob("*.safetensors"))
