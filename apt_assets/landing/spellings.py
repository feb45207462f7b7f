"""What the fields of a record are called, in the data sets that people have: the names of one thing, in the order in
which they count. Case, spaces and hyphens do not matter (`fields.normal`).

They are those of Alpaca, Dolly, ShareGPT, UltraChat, OpenAI's and TRL's formats, Argilla's and Intel's preferences,
SQuAD, NQ, TriviaQA, ARC, MedQA and SetFit's classification sets.
"""

from apt_assets.landing.fields import Names

PROMPT: Names = ("prompt",)
QUESTION: Names = ("question", "query", "problem", "question_stem")
ASKED: Names = ("prompt", *QUESTION, "instruction", "input", "inputs", "human", "user")
PASSAGE: Names = ("context", "passage", "article")  # stands before a question
INPUT: Names = ("input", "context")  # stands after an instruction
SYSTEM: Names = ("system", "system_prompt")
HISTORY: Names = ("history",)  # earlier turns, as pairs
ANSWER: Names = ("answer",)
# A gold goes before what may be some model's output.
ANSWERED: Names = (
    "answer", "answers", "ideal", "gold", "target", "targets", "reference", "expected", "expected_output",
    "output", "response", "completion", "solution", "assistant", "gpt", "bot",
)  # fmt: skip
ALIASES: Names = ("aliases", "answer_aliases")  # more right answers, beside the answer
CHAT: Names = ("messages", "conversations", "conversation", "contents")
CHOICES: Names = ("choices", "options")
CHOSEN_LETTER: Names = ("answer", "answerkey", "answer_key", "answer_idx", "answer_index", "label", "gold", "correct")
CHOSEN: Names = ("chosen", "chosen_response", "preferred_output", "preferred_completion", "response_j")
REJECTED: Names = (
    "rejected", "rejected_response", "non_preferred_output", "non_preferred_completion", "response_k",
)  # fmt: skip
TEXT: Names = ("text", "sentence", "utterance")
LABEL: Names = ("label_text", "label_name", "label", "intent", "category")
