"""A job for the nodes of a cluster: it takes adapters along, and runs only where rows get the bits that they get here.

The first task of each worker asks its node: for the code and the versions of libraries; for models under the same
paths, with the same content; and for the bits of a few questions, which another kind of processor gives otherwise. A
node that differs is refused by its name, and nothing that it would compute is kept.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from apt_assets.engine.job import Job
from apt_assets.engine.scope import RowScope, SentScope
from apt_assets.world.code import PACKAGES, digests_of
from apt_assets.world.execution import MODEL, Execution
from resources.cluster import node_name
from resources.processor import machine
from resources.store.digest import digest_file, digest_json
from resources.store.file_digests import FileDigests
from resources.store.kinds import installed_version
from resources.store.rows import Batches
from resources.workers import WorkerLost


@dataclass(frozen=True)
class NodeJob(Job):
    """code: digest of ours. context: all that decides these rows (RowScope.context). adapters: name in `given` -> file
    -> its content."""

    code: str
    context: dict[str, Any]
    adapters: dict[str, dict[str, bytes]]

    def __call__(self, items: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """As Job's. Raises WorkerLost if this node is refused."""
        key = digest_json(self.context)
        if key not in _admitted:
            if problem := next(differences(self), None):
                raise WorkerLost(f"node {node_name()} is refused: {problem}")
            _admitted[key] = replace(self.sent, given=self.sent.given | dict(unpacked(self)))
        return Job(self.compute, _admitted[key])(items)


@dataclass(frozen=True)
class NodeCheck:
    """Asked on a node, whether that may compute something that the rows of a kind say: as NodeJob asks."""

    sent: SentScope
    code: str
    context: dict[str, Any]

    def __call__(self) -> str:
        """Why the node is refused; "" if it is not."""
        problem = next(differences(self), None)
        return f"node {node_name()} is refused: {problem}" if problem else ""


_admitted: dict[str, SentScope] = {}  # of this worker: digest of a context -> what computes its rows may see


def for_nodes(compute: Callable[[RowScope, Sequence[Any]], Batches[Any]], scope: RowScope, sent: SentScope) -> NodeJob:
    adapters = {
        name: {part: (its.folder / part).read_bytes() for part in its.digest}
        for name, its in sent.given.items()
        if hasattr(its, "folder")
    }
    return NodeJob(compute, sent, own_code(), scope.context(), adapters)


def check_of(scope: RowScope) -> NodeCheck:
    """Where models do not give the same bits in another process, a node need not give them either."""
    sent = scope.sent()
    found = {name: its for name, its in sent.found.items() if not isinstance(its, Execution) or its.alone}
    return NodeCheck(replace(sent, found=found, given={}), own_code(), scope.context())


def differences(job: NodeJob | NodeCheck) -> Iterator[str]:
    """How this node differs from the machine that keeps the rows."""
    if own_code() != job.code:
        # Ray looks first where the driver was started, in a folder of that name on the node.
        yield f"its code is another, in {package_folders()[PACKAGES[0]]}: remove that, or bring it to the same state"
    for library, version in job.context["libraries"].items():
        if (its := installed_version(library)) != version:
            yield f"{library} {its}, and {version} where rows are kept: install that, or leave the node out"
    digests = FileDigests(own_folder() / "digests.json")
    for name, folder in job.sent.found.items():
        if isinstance(folder, Path):
            if not folder.is_dir():
                yield f"{folder}, {name}, is not there: put the model under that path on every node"
            elif digests.folder(folder) != job.context["identities"][name]:
                yield f"{folder}, {name}, has other content than where rows are kept: copy it anew"
    for name, execution in job.sent.found.items():
        if isinstance(execution, Execution) and (its := bits_here(job.sent, name, execution)) != execution.bits:
            processor = machine().get("model name", machine()["architecture"])
            yield (
                f"its processor ({processor}) rounds otherwise: bits {its}, and {execution.bits} where rows are kept; "
                "rows of both must not mix: take nodes of one kind"
            )


def own_code() -> str:
    """Digest of our packages as this process finds them."""
    return digest_json(digests_of(package_folders()))


def package_folders() -> dict[str, Path]:
    """Where this process has our packages: on a node Ray keeps each in a folder of its own."""
    return {package: Path(next(iter(import_module(package).__path__))) for package in PACKAGES}


def bits_here(sent: SentScope, name: str, execution: Execution) -> str:
    """What the model of this execution gives on this node."""
    from resources.model.exactness import bits
    from resources.model.held import BaseModel, Role, open_held

    policy = sent.experiment.policy
    role: Role = "policy" if name == "execution" else "grader"
    quantization = policy.quantization if role == "policy" else "none"
    base = BaseModel(sent.found[MODEL[name]], policy.dtype, quantization, policy.device, execution.path)
    return bits(open_held(role, base, execution.shape_free), policy.batch_tokens)


def unpacked(job: NodeJob) -> Iterator[tuple[str, Any]]:
    """(name, adapter) of each that came along, in a folder of this node by its content. Raises WorkerLost."""
    for name, files in job.adapters.items():
        adapter = job.sent.given[name]
        folder = own_folder() / digest_json(adapter.digest)
        if not folder.is_dir():
            new = Path(tempfile.mkdtemp(dir=own_folder()))
            for part, content in files.items():
                (new / part).write_bytes(content)
            with suppress(OSError):  # another worker of this node was first
                new.rename(folder)
        if {part: digest_file(folder / part) for part in files} != adapter.digest:
            raise WorkerLost(f"node {node_name()} is refused: {folder} is damaged: remove it")
        yield name, replace(adapter, folder=folder)


def own_folder() -> Path:
    """Of this node, for digests of its models, and adapters."""
    folder = Path(tempfile.gettempdir()) / f"apt-assets-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
