"""`apt-assets init`: six questions, a look at the data, and an experiment file with a reason for each setting."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.landing.folder import UNSHOWN
from apt_assets.method.left_out import in_words
from apt_assets.report.left_out import MOST_BYTES
from apt_assets.rows.lengths import counter
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import checked, expanded, file_to_write, find_home, nearest
from apt_assets.start import proposal
from apt_assets.start.proposal import RECIPES, Model, Proposal
from apt_assets.start.sample import Sample, as_it_would_land, look_at
from apt_assets.world.models import Models, NotDownloaded
from resources.model.device_memory import free_memory
from resources.model.files import Unusable
from resources.model.memory import UnknownSizes, sizes_of
from resources.store.file_digests import FileDigests

GRADERS = ("labels", "exact", "numeric", "set_f1", "overlap")  # that need no setting of their own
Ask = Callable[[str, str | None], str]  # a question and what is proposed -> the answer
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Given:
    """What was said beforehand; None: it is asked, or taken as it is proposed."""

    data: Path | None = None
    name: str | None = None
    model: str | None = None
    recipe: str | None = None
    assessor: str | None = None
    system_prompt: str | None = None
    encoding: str | None = None


def init(file: Path, given: Given, ask: Ask | None, tell: Tell) -> Path:
    """Look at the data, ask what was not given, write the experiment file, and tell what to type next; returns where
    it is. ask: None: nobody is there to be asked. Never writes over a file. Raises UsageError."""
    target = file_to_write(file)
    if target.exists():
        raise UsageError(f"{target}: is there already, and init writes over nothing: name another file")
    if (named := given.data) is None:
        if ask is None:
            raise UsageError("init: name your rows with --data FILE; there is no terminal in which to ask for it")
        named = Path(ask("Your rows, a file or a folder", None))
    data = expanded(named, "--data")

    def answer(said: str | None, question: str, proposed: str) -> str:
        return said if said is not None else proposed if ask is None else ask(question, proposed)

    with as_it_would_land(data, given.encoding) as landing:
        sample = look_at(landing, data.name)
        for line in about(sample):
            tell(line)
        name = answer(given.name, "Name of the experiment", name_of(data))
        checked({"name": name}, "--name")
        model = model_of(answer(given.model, "Model: embedded, a folder with safetensors, or a hub id", "embedded"))
        recipe = answer(given.recipe, f"Recipe, one of {', '.join(RECIPES)}", "apt")
        require_one_of(recipe, RECIPES, "--recipe")
        if recipe == "apt":
            tell("recipe apt: on our data plain fine-tuning gained more (docs/evidence.md): --recipe fine-tuning")
        tell(f"assessor {sample.kind.assessor}: {sample.kind.why}")
        assessor = answer(given.assessor, f"Assessor, one of {', '.join(GRADERS)}", sample.kind.assessor)
        require_grader(assessor)
        prompt = answer(given.system_prompt, "Said before each question", sample.kind.wanted)
        made, counts = propose(landing, sample, name, model, recipe, assessor, prompt)
    left_out = list(in_words(counts))
    for line in [*left_out, *made.remarks]:
        tell(line)
    text = made.text(head(sample, left_out))
    checked(made.content(), target)
    with target.open("x", encoding="utf-8") as written:  # nobody made it meanwhile
        written.write(text)
    tell(next_command(file, target, data, given.encoding))
    return target


def next_command(file: Path, written: Path, data: Path, encoding: str | None) -> str:
    """file: as it was named; written: where it is."""
    option = "" if written == Path("experiment.yaml").resolve() else f" -e {quote(str(file))}"
    coded = f" --encoding {quote(encoding)}" if encoding else ""
    return f"wrote {file}; next: apt-assets land{option}{coded} {quote(str(data))}, then apt-assets doctor{option}"


def about(sample: Sample) -> Iterator[str]:
    yield f"{sample.file}: {sample.taken}"
    bad = f", {sample.bad:,} that cannot be (`apt-assets land --dry-run` shows them)" if sample.bad else ""
    yield f"{sample.rows:,} rows can be used{bad}"


def head(sample: Sample, left_out: list[str]) -> list[str]:
    """What stands at the top of the file."""
    lines = [f"{sample.rows:,} rows", *left_out]
    return [
        f"Written by `apt-assets init` for {UNSHOWN.sub(' ', sample.file)}: {'; '.join(lines)}.",
        "Settings that are left out have the defaults in the reference (docs, or apt_assets/settings/).",
    ]


def name_of(data: Path) -> str:
    """An experiment's name out of a file's."""
    return re.sub(r"[^a-z0-9_-]+", "-", data.name.partition(".")[0].lower()).strip("-_")[:40] or "my-domain"


def require_grader(named: str) -> None:
    if named in ("rubric", "combined"):
        raise UsageError(
            f"--assessor: {named} needs settings of its own: choose another one here, and write `assessor` in the file "
            "(docs/guide/your-own-domain.md, step 3)"
        )
    require_one_of(named, GRADERS, "--assessor")


def require_one_of(named: str, known: Sequence[str], option: str) -> None:
    if named not in known:
        raise UsageError(f"{option}: {named!r} is none of {', '.join(known)}{nearest(named, known)}")


def model_of(named: str) -> tuple[Model, Path]:
    """A model as it is named, and its tokenizer's file, which may not be there. A relative folder counts from here, if
    it is here and not in the project's. Raises UsageError for a folder that holds no model."""
    home = find_home()
    here = expanded(named, "--model")
    if here.is_dir() and not (home / named).is_dir():
        named = str(here.resolve())
    experiment = checked({"name": "init", "policy": {"model": named}}, "--model")
    models = Models(experiment, home, home / ".apt" / "cache", FileDigests(home / ".apt" / "digests.json"), fetch=False)
    try:
        folder = models.base_model
    except NotDownloaded:
        return Model(named, None, None, exact=False), Path()
    try:
        weights: int | None = sizes_of(folder).weights
    except (UnknownSizes, Unusable):
        weights = None
    tokenizer = folder / "tokenizer.json"
    return Model(named, weights, limit_of(folder), tokenizer.is_file()), tokenizer


def limit_of(folder: Path) -> int | None:
    from resources.model.room import most_tokens

    return most_tokens(folder)


def propose(
    landing: Path, sample: Sample, name: str, of_model: tuple[Model, Path], recipe: str, assessor: str, prompt: str
) -> tuple[Proposal, Mapping[str, int]]:
    """(settings, why rows will be left out -> how many)."""
    model, tokenizer = of_model
    device = "cpu" if free_memory("cuda") is None else "cuda"
    made = Proposal()
    made.add("", "name", name, "")
    proposal.data_settings(made, name, sample)
    made.add("policy", "model", model.named, "")
    if device != "cpu":
        made.add("policy", "device", device, "There is a GPU.")
    if prompt:
        made.add("policy", "system_prompt", prompt, "Said before each question: what kind of answer is wanted.")
    chosen = sample.kind.why if assessor == sample.kind.assessor else f"Chosen; init proposed {sample.kind.assessor}"
    made.add("assessor", "kind", assessor, f"{chosen[0].upper()}{chosen[1:]}.")
    if assessor == sample.kind.assessor:
        for key, (value, why) in sample.kind.settings.items():
            made.add("assessor", key, value, why)
    counts: Mapping[str, int] = {}
    train = round(sample.rows * (1 - 2 * proposal.LEAST))
    if landing.stat().st_size <= MOST_BYTES:
        tables, counts = domain_of(checked(made.content(), "init"), [landing])
        proposal.near_duplicates(made, sample, counts)
        tables, counts = domain_of(checked(made.content(), "init"), [landing])
        train = tables["train"].height
    proposal.length_settings(made, sample, model, *sample.tokens(counter(tokenizer)))
    proposal.training_settings(made, recipe, model, train)
    proposal.gate_settings(made, model, device)
    return made, counts
