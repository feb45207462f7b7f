"""Push: what `export` writes, uploaded to the Hugging Face hub in one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.export import fresh, wanted_key, write
from apt_assets.report.model_card import Names, hub_id
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.digest import digest_file, list_files, temporary_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
PAIRS = "data"  # in the same repository: of one commit, they are those that its adapter was trained on


@dataclass(frozen=True)
class Wanted:
    """What is asked for. repo: NAME or OWNER/NAME. base: the base model's id on the hub; None: policy.model is one.
    pairs: whether they go too."""

    repo: str
    merged: bool = False
    iteration: int | None = None
    base: str | None = None
    pairs: bool = True
    private: bool = True


@dataclass(frozen=True)
class Pushed:
    """What went, or would. files: name -> [bytes, sha256]. commit: its address; None: nothing was uploaded."""

    repo: str
    iteration: str
    private: bool
    files: dict[str, tuple[int, str]]
    commit: str | None


def push(project: Project, wanted: Wanted, *, dry_run: bool) -> Pushed:
    """Upload a promoted iteration. Raises UsageError if nothing is promoted, if the base model has no name that others
    know, if the card would tell of this machine, and for whatever the hub refuses."""
    planner = project.planner()
    key = wanted_key(project, planner, wanted.iteration)
    adapter = promoted(project, planner, key)
    names = names_of(project, wanted)
    with temporary_folder(project.home / ".apt" / "pushed") as folder:
        write(project, planner, key, "merged" if wanted.merged else "adapter", folder, names)
        if not wanted.merged and digest_file(folder / ADAPTER_PARTS[1]) != adapter:
            raise UsageError(f"the adapter of iteration {key} is not the one that was promoted: run `apt-assets run`")
        require_no_paths(project, folder)
        if wanted.pairs:
            write(project, planner, key, "pairs", folder / PAIRS, names)
            with (folder / CARD).open("a", encoding="utf-8") as card:
                card.write(about_pairs(wanted.repo))
        files = {
            path.relative_to(folder).as_posix(): (path.stat().st_size, digest_file(path)) for path in list_files(folder)
        }
        commit = None
        if not dry_run:
            message = f"{project.experiment.name}, iteration {key}, adapter {adapter[:16]}"
            commit = upload(folder, list(files), wanted, message)
    return Pushed(wanted.repo, key, wanted.private, files, commit)


def promoted(project: Project, planner: LoopPlanner, key: str) -> str:
    """sha256 of the weights of the adapter that iteration `key` promoted. Raises UsageError if it promoted none."""
    verdict = planner.verdict(key)
    if verdict is not None and not verdict["passed"]:
        raise UsageError(f"the gate refused iteration {key}: {verdict['reason']}; `apt-assets export` writes it anyway")
    return digest_file(fresh(project, planner, key, "promoted_adapter") / ADAPTER_PARTS[1])


def names_of(project: Project, wanted: Wanted) -> Names:
    base = wanted.base or hub_id(project)
    if base is None and not wanted.merged:
        raise UsageError(
            f"policy.model is {project.experiment.policy.model}, which nobody else has: name the base model's id on "
            "the hub with --base, or push the whole model with --merged"
        )
    return Names(base or "", wanted.repo, base)


def require_no_paths(project: Project, folder: Path) -> None:
    """Raise UsageError if the card or a configuration names a folder of this machine."""
    ours = {str(project.home), str(project.models.base_model), f"{Path.home()}/"} - {"//"}
    for file in (folder / CARD, *folder.glob("*config.json")):  # a vocabulary may have such words
        text = file.read_text(encoding="utf-8")
        if (found := next((path for path in sorted(ours) if path in text), None)) is not None:
            raise UsageError(f"{file.name} would tell of {found}, a folder of this machine: nothing was uploaded")


def about_pairs(repo: str) -> str:
    code = f'load_dataset("json", data_files="hf://{repo}/{PAIRS}/train.jsonl")'
    return (
        f"\n## Pairs\n\n`{PAIRS}/train.jsonl` holds the preference pairs of the last iteration of its training, in "
        "TRL's format:\n\n"
        f"```python\nfrom datasets import load_dataset\n\npairs = {code}\n```\n"
    )


def upload(folder: Path, files: list[str], wanted: Wanted, message: str) -> str:
    """One commit with all files; returns its address. Raises UsageError with what the hub says."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with refusals(api, wanted.repo):
        repo = api.create_repo(wanted.repo, private=wanted.private, exist_ok=True).repo_id
        if wanted.private and not api.model_info(repo).private:
            raise UsageError(f"{repo} is public: say --public to push there, and --no-pairs if your data is not to go")
        operations = [CommitOperationAdd(name, folder / name) for name in files]
        return str(api.create_commit(repo, operations, commit_message=message).commit_url)


@contextmanager
def refusals(api: "HfApi", repo: str) -> Iterator[None]:
    """What the hub or the way to it is the reason of, as a UsageError."""
    from httpx2 import HTTPError

    try:
        yield
    except (HTTPError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{repo}: {api.endpoint} did not take it: {said}; nothing was committed") from None


def as_text(found: Pushed) -> str:
    lines = [f"{size:>12,} bytes  {digest[:16]}  {name}" for name, (size, digest) in found.files.items()]
    to = f"iteration {found.iteration} to {found.repo}"
    if found.commit is None:
        kind = "private" if found.private else "public"
        return "\n".join([*lines, f"would push {to}, {kind} if it is new; nothing was uploaded"])
    return "\n".join([*lines, f"pushed {to}: {found.commit}"])
