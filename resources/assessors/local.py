"""Rubric grading by a local model: which of the five grades it finds likeliest.

The model does not write a reply: the one that is asked for is scored with each of the five grades, so
every row gets a grade, no reply has to be parsed, and nothing depends on chance. The grade is the median
of that distribution, which is what the median of many samples would tend to (after G-Eval's weighting by
token probabilities, Liu et al. 2023, arXiv 2303.16634).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

from resources.assessors import Grade, Row, Variant
from resources.assessors.rubric import GRADES, Prompt, build_prompt, is_exact
from resources.model.packing import common_prefix
from resources.model.policy import encode
from resources.model.scoring import Question, Scores, score_answers
from resources.store.kinds import RowKind
from resources.store.rows import collect

if TYPE_CHECKING:
    from resources.model.policy import Policy


@dataclass(frozen=True)
class LocalRubric:
    """grader: a loaded model without a system prompt. batch_tokens: in one pass."""

    grader: "Policy"
    rubric: str
    batch_tokens: int
    at_once: int = 64

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        reserved = [*self.grader.tokenizer.all_special_tokens, *self.grader.tokenizer.get_added_vocab()]
        questions = [self.scored(build_prompt(row, self.rubric, reserved)) for row in rows]
        scores = score_answers(
            self.grader.model, questions, batch_tokens=self.batch_tokens, prefix=self.prefix(reserved)
        )
        grades = [median_grade(its) for its in collect(len(rows), scores)]
        return [Grade(grade, is_exact(row)) for row, grade in zip(rows, grades, strict=True)]

    def prefix(self, reserved: Sequence[str]) -> list[int]:
        """Token ids that all prompts begin with: template and rubric, up to the question. From rows made for
        this, since it must not depend on which rows are graded together."""
        probes = [build_prompt(Row(text, text, text), self.rubric, reserved) for text in ("a", "B", "7", "(")]
        encoded = [encode(self.grader, probe.text) for probe in probes]
        return encoded[0][: common_prefix(encoded)]

    def scored(self, prompt: Prompt) -> Question:
        """The prompt and the beginning of the reply as context, and what is left of the five replies."""
        replies = [
            self.grader.tokenizer(f"{prompt.reply_start} {grade}", add_special_tokens=False)["input_ids"]
            for grade in GRADES
        ]
        shared = common_prefix(replies)
        context = encode(self.grader, prompt.text) + replies[0][:shared]
        return Question(context, tuple(reply[shared:] for reply in replies))


def median_grade(scores: Scores) -> int:
    """The grade at which half of the probability is reached. scores: of the replies with 1, 2, 3, 4, 5."""
    best = max(log_prob for log_prob, _ in scores)
    weights = [exp(log_prob - best) for log_prob, _ in scores]
    below = 0.0
    for grade, weight in zip(GRADES, weights, strict=True):
        below += weight
        if 2 * below >= sum(weights):
            return grade
    raise ValueError(f"log-probabilities that are not numbers: {scores}")


ROWS = RowKind(
    "grades by rubric of a local model",
    table="grades",
    settings=("assessor.rubric.text", "policy.dtype", "policy.device", "policy.batch_tokens"),
    identities=("grader", "grader_execution"),
    libraries=("torch", "transformers", "tokenizers", "peft"),
    code=(__name__,),
    memory="grades",
)


def open_local(scope: Any) -> LocalRubric:
    """The grader on this machine, of what this process holds."""
    from resources.model.held import BaseModel, open_held
    from resources.model.no_room import set_tell

    policy, execution = scope.settings.policy, scope.outside("grader_execution")
    base = BaseModel(scope.outside("grader"), policy.dtype, device=policy.device, path=execution.path)
    grader = open_held("grader", base, execution.shape_free)
    set_tell(grader.model, scope.tell)
    return LocalRubric(grader, scope.settings.assessor.rubric.text, policy.batch_tokens)


LOCAL = Variant(ROWS, open_local)
