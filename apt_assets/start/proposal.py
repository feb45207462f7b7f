"""Settings for data that was looked at, each with its reason, and the experiment file that they make."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from textwrap import wrap
from typing import Any

from apt_assets.method.gate import POWER
from apt_assets.method.left_out import REASONS
from apt_assets.rows.lengths import TEMPLATE
from apt_assets.settings.deciding import Benchmarks, Gate
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.training import Training
from apt_assets.start.sample import Sample
from resources import yaml_file

HELD_OUT = 400  # rows that are wanted in a split: an accuracy is known to 5 points there
LEAST, MOST = 0.05, 0.2  # share of the rows
TOO_MANY = 0.1  # of the rows: near duplicates that leave
ASKED = 1000  # in an iteration
FEW = 1000  # training rows
RECIPES = ("apt", "fine-tuning")
LONGEST_ANSWER, LONGEST_ROW = 512, 2048  # tokens that are proposed at most
ITEMS = {"last_word": 200, "preposition": 150, "ending": 90, "passages": 40}  # as experiments/embedded.yaml
ALL_ITEMS = 1833  # of the default tasks
TURNING = 0.03  # share of general answers that turn in training (docs/lab-log.md)
LARGE = 400_000_000  # weights: on a CPU general items then take longer than all else
RATES = ((400_000_000, 1e-3), (3_000_000_000, 3e-4), (math.inf, 1e-4))  # up to so many weights (docs/guide/gpus.md)
WIDTH = 110


@dataclass(frozen=True)
class Model:
    """named: as the setting will have it. weights: how many; None: it is not on this machine. most: tokens that it
    reads at once; None: any number, or not known. exact: whether tokens were counted by its own tokenizer."""

    named: str
    weights: int | None
    most: int | None
    exact: bool


@dataclass
class Proposal:
    """sections: section -> key -> (value, why); "" is the top. remarks: what the data lacks, for people."""

    sections: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, section: str, key: str, value: Any, why: str) -> None:
        self.sections.setdefault(section, {})[key] = (value, why)

    def content(self) -> dict[str, Any]:
        """As an experiment file would be read."""
        found: dict[str, Any] = {}
        for section, settings in self.sections.items():
            target = found.setdefault(section, {}) if section else found
            target.update({key: value for key, (value, _) in settings.items()})
        return found

    def text(self, head: Sequence[str]) -> str:
        """The experiment file, its sections in the order of the reference."""
        lines = [line for text in head for line in comment(text, "")]
        order = ["", *Experiment.model_fields]
        for section, settings in sorted(self.sections.items(), key=lambda one: order.index(one[0])):
            lines += [f"{section}:"] if section else []
            indent = "  " if section else ""
            for key, (value, why) in settings.items():
                lines += comment(why, indent) if why else []
                lines.append(f"{indent}{key}: {as_yaml(value)}")
        return "\n".join(lines) + "\n"


def comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in wrap(text, WIDTH - len(indent), break_long_words=False)]


def as_yaml(value: Any) -> str:
    """A value on one line."""
    return yaml_file.dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()


# -- what is proposed ------------------------------------------------------------------------------------


def data_settings(made: Proposal, name: str, sample: Sample) -> None:
    """Where rows land, and how many are held out."""
    made.add("data", "landing", f"landing/{name}", "Its rows land in a folder of their own.")
    named = sum(sample.splits.values())
    if named == len(sample.prompts):
        counts = ", ".join(f"{count:,} {split}" for split, count in sample.splits.most_common())
        made.remarks.append(f"the rows name their split themselves: {counts}")
        if lacking := [split for split in ("validation", "test") if not sample.splits[split]]:
            made.remarks.append(
                f"no row is in {' or in '.join(lacking)}: the gate compares on validation rows, and refuses without "
                "any; leave the split out of some rows, which are then split by content"
            )
        return
    share = round(min(MOST, max(LEAST, HELD_OUT / sample.rows)), 2)
    held = max(1, round(share * sample.rows))
    margin = 100 * 1.96 * math.sqrt(0.25 / held)
    made.add(
        "data", "validation", share,
        f"About {held:,} of {sample.rows:,} rows decide the gate, where one answer is {100 / held:.2g} points; an "
        f"accuracy of 50 % is known to {margin:.0f} points.",
    )  # fmt: skip
    made.add("data", "test", share, "As many are reported only.")
    if held < 50:
        made.remarks.append(f"{held} validation rows show only large gains: land more rows, or raise data.validation")


def near_duplicates(made: Proposal, sample: Sample, counts: Mapping[str, int]) -> None:
    """counts: why rows are left out -> how many."""
    near = counts.get(REASONS["is within a word of "], 0)
    if near > TOO_MANY * sample.rows:
        made.add(
            "data", "near_duplicate_words", None,
            f"{near:,} of {sample.rows:,} rows are held-out questions but for a word, and have their answer: questions "
            "of one form. The default, 5 words, would leave them out; null keeps them. If they are copies, take this "
            "line out.",
        )  # fmt: skip


def length_settings(made: Proposal, sample: Sample, model: Model, prompts: list[int], answers: list[int]) -> None:
    """Longest answer and longest row."""
    of = "" if model.exact else " (guessed: the model is not on this machine yet)"
    longest = max(answers)
    most = min(longest + 2, LONGEST_ANSWER)
    beyond = sum(tokens + 2 > most for tokens in answers)
    cut = f"; {beyond:,} are longer, and cannot be given whole" if beyond else ""
    made.add("policy", "max_new_tokens", most, f"Your longest answer has {tokens_in_words(longest)}{of}{cut}.")
    around = TEMPLATE + len(made.content().get("policy", {}).get("system_prompt") or "") // 3
    rows = [prompt + answer + around for prompt, answer in zip(prompts, answers, strict=True)]
    default = Training().max_length
    limit = min(LONGEST_ROW, model.most or LONGEST_ROW)
    needed = min(limit, max(default, 64 * math.ceil(max(rows) / 64)))
    longer = sum(tokens > needed for tokens in rows)
    why = f"Your longest row has about {max(rows):,} tokens with what is written around it{of}"
    why += f", and the model reads {limit:,} at once" if needed == model.most else ""
    why += f"; {longer:,} rows are longer than this, and are cut, or left out of training." if longer else "."
    made.add("training", "max_length", needed, why)
    if model.most and (unread := sum(tokens + most > model.most for tokens in rows)):
        made.remarks.append(
            f"{unread:,} rows are longer than the {model.most:,} tokens that the model reads at once: `run` refuses "
            "them; shorten them, or name a model that reads more"
        )


def training_settings(made: Proposal, recipe: str, model: Model, train: int) -> None:
    """What is trained on, and how long. train: about how many training rows there will be."""
    if recipe == "fine-tuning":
        made.add("mining", "questions", 16, "Few: every row is trained on, however it is answered.")
        made.add("retrieval", "per_case", 0, "So no row has to be retrieved.")
        made.add(
            "pairs", "replay", "pool", "Besides what is answered wrong, every other row of the pool is trained on."
        )
        made.add("pairs", "replay_share", None, "However many those are.")
        made.add("training", "objective", "sft", "On the right answers alone: plain fine-tuning.")
    else:
        made.add(
            "mining", "questions", None if train <= ASKED else ASKED,
            f"All of about {train:,} training rows are asked in each iteration."
            if train <= ASKED
            else f"Asked in an iteration, of about {train:,} training rows; drawn afresh each time.",
        )  # fmt: skip
    if train < FEW:
        made.add("training", "epochs", 2, "Of a few hundred rows two passes gained more than one (docs/evidence.md).")
    if model.weights:
        rate = next(rate for most, rate in RATES if model.weights <= most)
        size = weights_in_words(model.weights)
        made.add("training", "learning_rate", rate, f"For {size}: a larger model wants less (docs/guide/gpus.md).")


def gate_settings(made: Proposal, model: Model, device: str) -> None:
    """How many general items are scored, and the loss that they can show."""
    items = sum(count for task, count in ITEMS.items() if task != "passages")
    if device == "cpu" and (model.weights or 0) > LARGE:
        shown = smallest_loss(items)
        made.add(
            "benchmarks", "tasks", ITEMS,
            f"A quarter of the general items: all {ALL_ITEMS:,} of a model this large take long on a CPU.",
        )  # fmt: skip
        made.add(
            "gate", "general_tolerance", math.ceil(100 * shown) / 100,
            f"{items} items show a loss of {100 * shown:.1f} points {POWER:.0%} of the time, if {TURNING:.0%} of the "
            f"answers turn; all {ALL_ITEMS:,} show one of {100 * smallest_loss(ALL_ITEMS):.0f} point.",
        )  # fmt: skip
        return
    tolerance, chosen = Gate().general_tolerance, [task for task in Benchmarks().tasks if task != "passages"]
    made.add(
        "gate", "general_tolerance", tolerance,
        f"All {ALL_ITEMS:,} items of {', '.join(chosen)} are scored: they show a loss of "
        f"{100 * smallest_loss(ALL_ITEMS):.0f} point {POWER:.0%} of the time, if {TURNING:.0%} of the answers turn.",
    )  # fmt: skip


def weights_in_words(count: int) -> str:
    return f"{count / 1e6:,.0f} million weights" if count >= 1e6 else f"{count:,} weights"


def tokens_in_words(count: int) -> str:
    return f"{count:,} token{'s' if count != 1 else ''}"


def smallest_loss(items: int) -> float:
    """The loss of accuracy, 0-1, that the gate sees with a power of POWER where TURNING of the answers turn: see
    `method.gate.smallest_visible`."""
    z = NormalDist().inv_cdf
    return (z(Gate().confidence) + z(POWER)) * math.sqrt(TURNING / items)
