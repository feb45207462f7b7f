"""Of what pairs are made, and how they are trained on; provenance: experiment.py."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from resources.section import Fraction, Section, as_written


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
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(as_written)] = Field(
        "auto",
        description="on: layers are computed once more on the way back, which takes a third more time and a fraction "
        "of the memory; auto: where a step would not fit otherwise. It changes no result.",
    )
    seed: int = Field(17, ge=0, lt=2**32, description="Of initialisation and order.")

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
