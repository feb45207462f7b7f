"""The experiment file: every setting of a run, typed, with its meaning, default and provenance.

Provenance of a default is one of: paper (arXiv 2506.03483, known through its abstract and
reviews), IRPO (arXiv 2404.19733), measured (docs/lab-log.md), choice (ours; the paper does not let
us know it).
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationInfo, create_model, field_validator, model_validator

from resources.assessors.golds import checks_of
from resources.assessors.kinds import ASSESSORS
from resources.assessors.labels import normalise_answer
from resources.section import Fraction, Section

REPOSITORY = Path(__file__).resolve().parents[2]


class UsageError(Exception):
    """Bad usage or bad input: the message says what to change; the command line exits with 2."""


def is_section(kind: Any) -> bool:
    """Whether a setting's type is a section of settings."""
    return isinstance(kind, type) and issubclass(kind, Section)


def native_dtype(device: str) -> str:
    """bfloat16 on GPUs and on CPUs with bfloat16 instructions, else float32.

    Elsewhere a CPU emulates bfloat16: eight times slower than float32 on AVX2 (docs/lab-log.md).
    """
    if device != "cpu":
        return "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    native = re.search(r"\b(avx512_bf16|amx_bf16)\b|^Features.*\bbf16\b", flags, re.MULTILINE)
    return "bfloat16" if native else "float32"


class Data(Section):
    """Where data lands, and how it is split for ever by content hash of the prompt."""

    landing: str | None = Field(None, description="Folder of landed files; default landing/.")
    validation: Fraction = Field(0.05, description="Share of prompts that decide the gate (choice).")
    test: Fraction = Field(0.05, description="Share of prompts that are reported only (choice).")

    near_duplicate_words: int | None = Field(
        5,
        ge=2,
        description="A training question that is a held-out one but for a word, and has its answer, is left out "
        "if both have at least so many words (measured); null: none is.",
    )

    @model_validator(mode="after")
    def leaves_rows_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be below 1: no row would be left to train on")
        return self


class Server(Section):
    """A server with OpenAI's completions interface (docs/adr/0009-generation-back-ends.md). Its key, if it
    wants one, is in $APT_SERVER_KEY."""

    url: str | None = Field(None, pattern=r"^https?://", description="Up to and with /v1.")
    engine: str | None = Field(
        None, description="What runs there, in words (software, version, dtype). Change it with the server: answers do."
    )
    concurrency: int = Field(16, ge=1, description="Questions under way at once.")
    timeout: float = Field(120, gt=0, description="Seconds to wait for an answer before it is asked again.")


class PolicySettings(Section):
    """The base model and how it answers. Decoding is greedy."""

    model: str = Field("embedded", description="embedded, a folder with safetensors, or a hub id.")
    revision: str | None = Field(None, description="Of a hub id: a commit, tag or branch; null: main.")
    initial_adapter: str | None = Field(
        None,
        description="A folder with a LoRA adapter that the loop starts from, in place of the bare base model: a "
        "specialist made elsewhere; null: the base model (choice).",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Of the frozen weights; auto: bfloat16 where the hardware multiplies it, else float32."
    )
    quantization: Literal["none", "nf4"] = Field(
        "none", description="nf4: frozen weights in 4 bits (QLoRA, arXiv 2305.14314); a GPU and the extra qlora."
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Of several GPUs the one in $CUDA_VISIBLE_DEVICES, or the first."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="On a CPU; null: $OMP_NUM_THREADS, else the cores that this machine or container gives, of a study "
        "shared out among its processes. Many rows are computed by so many processes of one thread each. Makes nothing "
        "stale (choice).",
    )
    backend: Literal["transformers", "openai"] = Field(
        "transformers", description="What answers; training and scoring are done here. openai: `server`."
    )
    server: Server = Server()
    system_prompt: str | None = Field(None, description="Put before every question.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens; golds beyond it are told.")
    batch_tokens: int = Field(1024, ge=64, description="Tokens in one pass while answering or scoring.")

    @field_validator("backend", mode="before")
    @classmethod
    def is_no_longer_in_this_process(cls, value: Any) -> Any:
        if value == "vllm":
            raise ValueError(
                "vLLM runs as a server now, in an environment of its own: write `backend: openai` and `server: {url: "
                "http://localhost:8000/v1}` (docs/guide/gpus.md tells how to start it)"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def name_the_dtype(cls, values: Any) -> Any:
        """What `auto` is on this machine: results differ, so the fingerprint must hold the dtype itself."""
        if isinstance(values, dict) and values.get("dtype", "auto") == "auto":
            return {**values, "dtype": native_dtype(values.get("device", "cpu"))}
        return values

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        for key, value in (("dtype", "float16"), ("quantization", "nf4")):
            if self.device == "cpu" and getattr(self, key) == value:
                raise ValueError(f"{key}: {value} needs a GPU: set device to cuda, or leave {key} out")
        if self.quantization == "nf4" and self.dtype != "bfloat16":
            raise ValueError("quantization: nf4 needs dtype bfloat16, in which TRL then trains the adapter")
        if (self.backend == "openai") != (self.server.url is not None):
            raise ValueError("backend: openai and server.url go together: set both or neither")
        return self


class Mining(Section):
    """Which training questions an iteration asks."""

    questions: int | None = Field(1000, ge=1, description="Drawn afresh each iteration; null: all.")
    seed: int = Field(17, description="Of that draw, and of `retrieval.choose`: random.")


if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(ASSESSORS)]


class CombinedSettings(Section):
    """The weighted mean of several assessors' grades, rounded; a half is rounded down."""

    weights: dict[Kind, Annotated[float, Field(gt=0)]] = Field({}, description="Kind -> weight, such as {labels: 2}.")


class Calibration(Section):
    """The judge judged: people grade some answers too, and the gate counts with how far the assessor agrees with them
    (apt_assets/method/judge.py)."""

    folder: str | None = Field(
        None,
        description="Folder with human grades, *.jsonl, such as human-grades, where the review page writes them; null: "
        "the assessor is taken at its word.",
    )
    floor: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="Kappa of right and wrong, at the lower end of its interval, below which the gate promotes nothing "
        "(above 0.6: substantial agreement; Landis and Koch 1977, Biometrics 33: 159-174).",
    )


class AssessorBase(Section):
    """Grades 1-5. Each kind's own rubric stands in its file in resources/assessors/."""

    kind: Kind | Literal["combined"] = Field("labels", description="How answers are graded.")
    bad_below: int = Field(4, ge=2, le=5, description="A lower grade is a bad case (paper).")
    labels: list[str] | Literal["auto"] = Field(
        "auto", description="Competing answers; auto: the distinct golds, if at most 100 of them."
    )
    combined: CombinedSettings = CombinedSettings()
    calibration: Calibration = Calibration()

    @field_validator("labels")
    @classmethod
    def are_told_apart(cls, labels: list[str] | Literal["auto"]) -> list[str] | Literal["auto"]:
        by_form: dict[str, str] = {}
        for label in [] if labels == "auto" else labels:
            other = by_form.setdefault(normalise_answer(label), label)
            if other != label:
                raise ValueError(f"{other!r} and {label!r} are one label, case and punctuation aside: keep one of them")
        return labels

    @property
    def gold_checks(self) -> dict[str, Any]:
        """What of these settings decides which golds can be graded: most kinds grade against any."""
        return checks_of(kinds_of(self), self)

    @model_validator(mode="after")
    def has_what_its_kind_needs(self) -> Self:
        kinds, rubric = kinds_of(self), getattr(self, "rubric")  # noqa: B009 - the field is of an assessor's file
        if not kinds:
            raise ValueError("kind combined needs assessor.combined.weights, such as {labels: 2, overlap: 1}")
        if "rubric" in kinds:
            if not rubric.model:
                raise ValueError("kind rubric needs assessor.rubric.model")
            if rubric.unsure == "auto":
                # The grades themselves: the threshold must count where it decides a grade, and only there.
                near = rubric.model_copy(update={"unsure": [self.bad_below - 1, self.bad_below]})
                return self.model_copy(update={"rubric": near})
        return self


if TYPE_CHECKING:
    AssessorSettings = Any
else:
    # Each assessor's own section, under its name.
    AssessorSettings = create_model(
        "AssessorSettings",
        __base__=AssessorBase,
        __doc__=AssessorBase.__doc__,
        **{name: (one.settings, one.settings()) for name, one in ASSESSORS.items() if one.settings is not None},
    )


def kinds_of(assessor: Any) -> dict[str, float]:
    """Weight of each kind that grades, by AssessorSettings or a stage's view of them."""
    return dict(assessor.combined.weights) if assessor.kind == "combined" else {assessor.kind: 1.0}


class Retrieval(Section):
    """Similar cases: nearest training rows of each bad case, cosine similarity."""

    choose: Literal["similar", "random"] = Field(
        "similar",
        description="random: as many rows drawn by hash in their place, to tell what similarity adds (choice).",
    )
    encoder: str = Field("embedded", description="embedded, or a sentence-transformers folder or id.")
    per_case: int = Field(2, ge=0, description="Neighbours per bad case, k (choice).")
    batch_size: int = Field(64, ge=1, description="Texts embedded at once.")


class Pairs(Section):
    """Which rows become preference pairs."""

    max_bad_cases: int | None = Field(None, ge=1, description="Most bad cases used; null: all (choice).")
    max_doubt: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="A gold that is more doubtful than that (`apt-assets show doubtful`) is dealt with as `doubtful` "
        "says; null: none is (choice).",
    )
    doubtful: Literal["leave_out", "soften"] = Field(
        "leave_out",
        description="leave_out: a bad case with such a gold makes no pair, nor do its similar cases; soften: such a "
        "pair counts less in training, (1 - doubt) / (1 - max_doubt) of another one, which is the share of it that is "
        "right if max_doubt is 0 (choice; importance reweighting, arXiv 1411.7718).",
    )
    replay: Literal["answered_right", "pool"] = Field(
        "answered_right",
        description="Where replay rows (NLL only) come from: questions that the policy answered right, or any training "
        "row that is no pair, drawn afresh each iteration by mining.seed (choice).",
    )
    replay_share: float | None = Field(
        1.0, ge=0, description="Most replay rows per pair; 0: none; null: all there are (measured)."
    )
    rejected: Literal["own", "given"] = Field(
        "own",
        description="What a pair rejects. own: the policy's own wrong answer (paper); given: the rejected answer that "
        "came with the row, where one did, ungraded, in place of its own and of a made-up one (choice).",
    )
    counterfactual: Literal["none", "perturbed", "sampled"] = Field(
        "none",
        description="Wrong answer to reject where a similar case was answered right. perturbed: the gold, changed; "
        "sampled: the policy's, at `temperature`, if one of four is wrong; none: such a case is replay (choice).",
    )
    temperature: float = Field(1.0, gt=0, description="Of the sampled answers (choice).")

    @model_validator(mode="after")
    def softens_from_some_doubt_on(self) -> Self:
        if self.doubtful == "soften" and self.max_doubt is None:
            raise ValueError("doubtful: soften needs max_doubt, from which on golds count less, such as 0.8")
        return self

    @property
    def every_row(self) -> bool:
        """Whether all training rows are trained on, whatever the policy answers."""
        return self.replay == "pool" and self.replay_share is None


UNUSED_BY_SFT = ("loss", "beta", "nll_weight", "reference")


class Training(Section):
    """LoRA, by TRL. Objective dpo: DPO + NLL on pairs. Objective sft: plain fine-tuning, the NLL of the chosen
    answers alone; it does not use loss, beta, nll_weight and reference, so their values do not count then. An
    adapter that is trained further, `policy.initial_adapter` or a promoted one, keeps the rank, alpha and targets
    that it has: those here are of a fresh one."""

    objective: Literal["dpo", "sft"] = Field(
        "dpo",
        description="dpo: preference training (paper); sft: fine-tuning, which gained more in our study "
        "(docs/evidence.md).",
    )
    loss: Literal["sigmoid", "sigmoid_norm"] = Field(
        "sigmoid",
        description="sigmoid: DPO; sigmoid_norm: DPO on log-ratios per token, which wants a larger beta (choice).",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak, of the first iteration (measured).")
    learning_rate_decay: float = Field(0.5, gt=0, le=1, description="Factor per iteration (measured).")
    beta: float = Field(0.1, gt=0, description="DPO temperature (IRPO).")
    nll_weight: float = Field(1.0, ge=0, description="Weight of the NLL of the chosen answer (IRPO).")
    reference: Literal["previous", "base"] = Field(
        "previous", description="Reference model; base: the base model without any adapter (choice)."
    )
    lora_rank: int = Field(
        16, ge=1, description="r of every layer in lora_targets; an initial adapter keeps its own (choice)."
    )
    lora_alpha: int = Field(32, ge=1, description="LoRA scale is alpha / r; an initial adapter keeps its own (choice).")
    lora_targets: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = Field(
        "all-linear",
        description="Names of linear layers, such as q_proj; all-linear: all but the output head; an initial adapter "
        "keeps its own (choice).",
    )
    batch_size: int = Field(
        8,
        ge=1,
        description="Pairs per optimiser step. Where they do not fit into memory at once, a step is several passes.",
    )
    epochs: int = Field(
        1, ge=1, description="Passes over the pairs; of a few hundred rows four gained more (docs/evidence.md)."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that train together, each on its share of every batch, by Ray, with the extra cluster; "
        "1: this one alone. It rounds otherwise (choice).",
    )
    strategy: Literal["ddp", "fsdp2"] = Field(
        "ddp",
        description="Of several workers. ddp: each holds the whole model; fsdp2: each holds a part of the frozen "
        "weights while it trains, which leaves room for longer pairs or more of them (choice).",
    )
    warmup_steps: int = Field(5, ge=0, description="Linear warm-up; then linear decay to 0.")
    max_length: int = Field(
        512,
        ge=8,
        description="Longest prompt + answer, in tokens. Answers are cut there; a pair whose prompt alone is as long "
        "is left out; both are told.",
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: layers are computed once more on the way back, which takes a third more time and a fraction "
        "of the memory; auto: where a step would not fit otherwise. It changes no result.",
    )
    seed: int = Field(17, description="Of initialisation and order.")

    @model_validator(mode="after")
    def forget_what_is_not_used(self) -> Self:
        """The fingerprint must hold what decides the adapter, and only that."""
        unused = [*(UNUSED_BY_SFT if self.objective == "sft" else ()), *(["strategy"] if self.workers == 1 else [])]
        defaults = {name: type(self).model_fields[name].default for name in unused}
        changed = {name: default for name, default in defaults.items() if getattr(self, name) != default}
        return self.model_copy(update=changed) if changed else self

    @model_validator(mode="after")
    def has_a_pair_for_each_worker(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(
                f"workers: {self.workers} would share a batch of {self.batch_size} pairs: some would have none"
            )
        return self


class Anchor(Section):
    """What keeps the policy saying what it said before: the model that the loop starts from writes texts that nobody
    asked for, and each training step holds the policy to it on some of them (resources/training/anchor.py)."""

    weight: float = Field(0.3, ge=0, description="Of the term, beside the loss of `training`; 0: no anchor (measured).")
    form: Literal["kl", "nll"] = Field(
        "kl",
        description="kl: divergence from what the loop starts from (learning without forgetting, arXiv 1606.09282); "
        "nll: the texts as rows to learn.",
    )
    texts: int = Field(256, ge=0, description="How many there are; 0: no anchor (choice).")
    texts_per_step: int = Field(1, ge=1, description="Drawn for each optimiser step (measured).")
    tokens: int = Field(64, ge=8, description="Of each text, what it begins with aside (choice).")
    temperature: float = Field(
        1.0, gt=0, description="At which they are sampled (context-free data, arXiv 2505.13811)."
    )
    chat_share: Fraction = Field(
        0.33,
        description="Of the texts, those that begin where a user would speak (Magpie, arXiv 2406.08464); the others "
        "begin as a document does. Without a chat template all do (choice).",
    )
    folder: str | None = Field(
        None, description="Folder with general text of your own, .txt and .md, in their place; null: none."
    )

    @model_validator(mode="after")
    def forget_what_is_not_used(self) -> Self:
        """The fingerprint must hold what decides the texts and the adapter, and only that."""
        fields = type(self).model_fields
        off = self.weight == 0 or self.texts == 0
        unused = set(fields) if off else {"temperature", "chat_share"} if self.folder is not None else set()
        if not unused:
            return self
        zero = {"weight": 0.0, "texts": 0} if off else {}
        return self.model_copy(update={name: fields[name].default for name in unused} | zero)


class Benchmarks(Section):
    """What decides promotion beside the domain's own validation rows."""

    folder: str = Field("tasks", description="Folder of lm-eval YAML tasks, one file per task.")
    tasks: dict[str, Annotated[int, Field(ge=1)] | None] = Field(
        {"last_word": None, "preposition": None, "ending": None, "passages": 60},
        description="Task -> how many of its items, the first ones; null: all (choice: 1,833 items see a loss of a "
        "point where 3 % of the answers turn).",
    )


class Gate(Section):
    """When an adapter may be promoted."""

    domain_tolerance: Fraction = Field(0.0, description="Accuracy it may lose to the promoted (choice).")
    general_tolerance: Fraction = Field(
        0.01, description="General accuracy it may lose to the base model or initial adapter, as a share (choice)."
    )
    likelihood_tolerance: float | None = Field(
        0.02, ge=0, description="Log-likelihood of general golds it may lose, nats per character; null: any (choice)."
    )
    perplexity_tolerance: float | None = Field(
        0.05, ge=0, description="By what share word perplexity of passages may rise; null: by any (choice)."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the bound on a loss, by the paired bootstrap.")
    resamples: int = Field(2000, ge=100, description="Of the paired bootstrap.")
    approval: Literal["none", "required"] = Field(
        "none",
        description="required: an adapter that passed is promoted once a person approves of it (`apt-assets approve`); "
        "until then the loop waits (choice).",
    )


class Promotion(Section):
    """What is promoted where the gate refuses for lost general ability alone: the same adapter, scaled down."""

    scales: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=9)] = Field(
        [0.7, 0.5],
        description="By which the adapter's update is multiplied: each is scored, and the best that passes is promoted "
        "(Wise-FT, arXiv 2109.01903); []: none.",
    )


class Loop(Section):
    """When the loop ends by itself."""

    max_iterations: int = Field(2, ge=1, le=9999, description="Most iterations on the same landed files (choice).")
    budget: float | None = Field(
        None,
        gt=0,
        description="In the currency of `costs`: no iteration begins with which more than that would be spent on this "
        "experiment in all; null: none is set.",
    )


class Compute(Section):
    """Where answers, scores, anchor texts and grades by a model here are computed. It makes nothing stale."""

    engine: Literal["local", "ray"] = Field(
        "local", description="local: on this machine; ray: as tasks of a Ray cluster, with the extra cluster (choice)."
    )
    address: str | None = Field(
        None,
        description="Of the cluster: ray://HOST:10001, HOST:6379, or auto on a node of it; null: this machine is one.",
    )


class Serve(Section):
    """How `apt-assets serve` tells of what it does; what it answers decides nothing here."""

    dagster: bool = Field(
        False, description="Whether Dagster has an asset `served_adapter`, with what is live and since when (choice)."
    )


Event = Literal["promoted", "refused", "failed", "ended", "quarantined"]


class Alerts(Section):
    """Who is told what a run came to (docs/guide/automation.md). Addresses of servers are secrets and stand in the
    environment: $APT_ALERT_WEBHOOK, $APT_SMTP_URL. It makes nothing stale."""

    webhook: Literal["slack", "json"] | None = Field(
        None, description="What $APT_ALERT_WEBHOOK takes: Slack's form, or all fields as JSON; null: none is told."
    )
    email: list[Annotated[str, Field(pattern=r"^[^@\s,<>]+@[^@\s,<>]+$")]] = Field(
        [], description="Addresses that the server of $APT_SMTP_URL sends to."
    )
    on: list[Event] = Field(
        list(get_args(Event)),
        description="promoted, refused: by the gate; failed: a run; ended: the loop; quarantined: rows of new files.",
    )

    @model_validator(mode="before")
    @classmethod
    def read_on(cls, values: Any) -> Any:
        """YAML 1.1 reads a key `on` as true."""
        if isinstance(values, dict) and True in values and "on" not in values:
            return {"on" if key is True else key: value for key, value in values.items()}
        return values


class Costs(Section):
    """What computing costs. With a price here, `plan`, `run`, the report and Dagster tell amounts of money. It makes
    nothing stale."""

    device_hour: float | None = Field(
        None,
        ge=0,
        description="An hour in which a stage computes, all machines that do so together; null: not counted.",
    )
    grader_per_million_tokens: float | None = Field(
        None,
        ge=0,
        description="A million tokens at assessor.rubric.endpoint, of prompts and replies alike; null: not counted.",
    )
    currency: str = Field("EUR", pattern=r"^[^\W\d_]{1,8}$|^[$\u20ac\u00a3\u00a5]$", description="Of all of these.")

    @property
    def given(self) -> bool:
        return self.device_hour is not None or self.grader_per_million_tokens is not None


class Experiment(Section):
    """One experiment file. Every section may be left out; `name` may not."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    owners: list[Annotated[str, Field(pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]] = Field(
        [], description="Shown in Dagster as the owners of all assets: an e-mail address or team:NAME."
    )
    tracking: list[Literal["mlflow", "wandb", "trackio", "tensorboard"]] = Field(
        [],
        description="Where each iteration is reported as a run; the extra of the same name installs it. It makes "
        "nothing stale (choice).",
    )
    data: Data = Data()
    policy: PolicySettings = PolicySettings()
    mining: Mining = Mining()
    assessor: AssessorSettings = AssessorSettings()
    retrieval: Retrieval = Retrieval()
    pairs: Pairs = Pairs()
    training: Training = Training()
    anchor: Anchor = Anchor()
    benchmarks: Benchmarks = Benchmarks()
    gate: Gate = Gate()
    promotion: Promotion = Promotion()
    loop: Loop = Loop()
    compute: Compute = Compute()
    serve: Serve = Serve()
    costs: Costs = Costs()
    alerts: Alerts = Alerts()

    @model_validator(mode="after")
    def can_tell_what_is_spent(self) -> Self:
        if self.loop.budget is not None and not self.costs.given:
            raise ValueError("loop.budget needs a price: set costs.device_hour or costs.grader_per_million_tokens")
        return self

    @field_validator("pairs")
    @classmethod
    def can_be_sampled(cls, pairs: Pairs, info: ValidationInfo) -> Pairs:
        policy = info.data.get("policy")
        if policy is not None and pairs.counterfactual == "sampled" and policy.backend != "transformers":
            raise ValueError(
                "pairs.counterfactual: sampled needs policy.backend: transformers, which seeds each answer"
            )
        return pairs

    @field_validator("training")
    @classmethod
    def can_be_shared_out(cls, training: Training, info: ValidationInfo) -> Training:
        policy = info.data.get("policy")
        if policy is not None and training.strategy == "fsdp2" and policy.quantization != "none":
            raise ValueError("training.strategy: fsdp2 shares out weights as they are: set policy.quantization to none")
        return training

    def leaves(self, path: str) -> dict[str, Any]:
        """The values at a dotted path, by full key: one for a value, all of them for a section."""
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        if isinstance(value, Section):
            return {f"{path}.{key}": child for key, child in value.model_dump().items()}
        return {path: value}
