"""What is wrong with a causal language model, said before anything is computed with it.

The libraries that will load it are asked, of its weights only names and shapes: what would be initialised at
random, for want of a weight, gives answers that look like answers.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resources.model.capabilities import skeleton
from resources.model.files import ANEW, Unusable, shapes_in, weights_of
from resources.model.prompts import Reader, encode, load_tokenizer, messages, written

QUESTION, ANSWER = "Which colour has grass?", "Green."
# Heads, by the end of a class's name, that tell what a text is like and not how it goes on.
OTHER_HEADS = re.compile(r"For(\w*Classification|\w*Regression|MaskedLM|QuestionAnswering|MultipleChoice)$|Reward")
SHOWN = 3  # names of weights in a message


def check_language_model(folder: Path, system_prompt: str | None, *, answers: bool = True) -> None:
    """Raise Unusable if the model of a folder that `files.check_model` finds whole cannot be used.

    answers: whether it writes answers and is trained, or only scores what others wrote.
    """
    with quiet():
        config = config_of(folder)
        check_kind(config)
        reader = Reader(tokenizer_of(folder), system_prompt)
        check_template(reader)
        rows = check_weights(folder, config).get_input_embeddings().weight.shape[0]
        check_tokens(reader, rows)
        ends = ends_of(folder, config)
        if answers:
            check_end(ends, reader.tokenizer, rows)
        check_numbers(folder)


def config_of(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever the class of the model's kind says to what is in there
        if "trust_remote_code" in str(error):
            raise Unusable("it needs code of its own (auto_map), which is never run here: name another") from None
        raise Unusable(f"config.json cannot be used ({in_a_line(error)}): correct it, or name another") from None


def check_kind(config: Any) -> None:
    """Raise Unusable if a configuration is not that of a causal language model, or of one that cannot be loaded here
    as it is quantised."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
    from transformers.quantizers import AutoHfQuantizer

    architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
    # These see what stands behind a token as well, unless they were trained as decoders.
    both_ways = type(config) in MODEL_FOR_MASKED_LM_MAPPING or config.model_type == "bert-generation"
    if (
        type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
        or getattr(config, "is_encoder_decoder", False)
        or (both_ways and not getattr(config, "is_decoder", False))
        or OTHER_HEADS.search(architecture)
    ):
        raise Unusable(
            f"it is a {architecture}, and no causal language model, which goes on with a text: name one that is (its "
            "class ends in ForCausalLM or LMHeadModel)"
        )
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        try:
            AutoHfQuantizer.from_config(quantised).validate_environment(device_map=None)
        except Exception as error:  # each kind says in its own way what it lacks
            raise Unusable(
                f"its weights are quantised, and cannot be loaded here ({in_a_line(error)}): name the model that it "
                "was made of; policy.quantization: nf4 makes that one small"
            ) from None


def check_weights(folder: Path, config: Any) -> Any:
    """The model without its weights. Raises Unusable if they lack one of the model's, or one has another shape."""
    try:
        model = skeleton(folder)
    except Exception as error:  # sizes that do not go together, and whatever else a class says to its configuration
        raise Unusable(f"no model can be built by its config.json ({in_a_line(error)}); {ANEW}") from None
    if getattr(config, "quantization_config", None) is None:
        compare_weights(folder, type(model), config)
    return model


def compare_weights(folder: Path, model_class: Any, config: Any, spare: tuple[str, ...] = ()) -> None:
    """Raise Unusable if the weights of a folder are not those of a model of this class. spare: beginnings of the names
    of weights that it does without."""
    import torch

    found = {
        name: torch.empty(shape, device="meta")
        for path in weights_of(folder)
        for name, shape in shapes_in(path).items()
    }
    # As it is loaded later, by the same renaming of weights, but that no weight is read.
    _, loaded = model_class.from_pretrained(
        None, config=config, state_dict=found, device_map="meta", output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    if others := sorted(loaded["mismatched_keys"]):
        name, there, wanted = others[0]
        raise Unusable(
            f"{len(others)} of its weights have another shape than config.json tells, such as {name}: {list(there)} "
            f"where {list(wanted)} is needed; {ANEW}"
        )
    if lacking := sorted(name for name in loaded["missing_keys"] if not name.startswith(spare)):
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        raise Unusable(
            f"{len(lacking)} weights that a {model_class.__name__} needs are not there ({', '.join(lacking[:SHOWN])}"
            f"{more}): it is no model of this kind, or not all of one; {ANEW}"
        )


def tokenizer_of(folder: Path) -> Any:
    """Its tokenizer. Raises Unusable if there is none, or one that does not know what a text consists of."""
    try:
        tokenizer = load_tokenizer(folder)
        ids = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    except Exception as error:  # of tokenizers, sentencepiece, or a class of the model's kind
        raise Unusable(f"its tokenizer cannot be read ({in_a_line(error)}); {ANEW}") from None
    if not set(ids) - {tokenizer.unk_token_id}:
        raise Unusable(
            f"its tokenizer knows no word of a text: files of it, such as tokenizer.json, are missing; {ANEW}"
        )
    return tokenizer


def check_template(reader: Reader) -> None:
    """Raise Unusable if the chat template cannot be written with what is asked and trained on, or leaves some out."""
    if reader.tokenizer.chat_template is None:
        return
    repair = "correct chat_template, take it out (questions are then asked as they are), or name another"
    asked = messages(QUESTION, None)
    for turns in (asked, [*asked, {"role": "assistant", "content": ANSWER}]):
        what = "a question" if turns is asked else "a question and its answer"
        try:
            text = written(reader.tokenizer, turns, asks=turns is asked)
        except Exception as error:  # a template is a program
            raise Unusable(f"its chat template cannot be written with {what} ({in_a_line(error)}): {repair}") from None
        if turns[-1]["content"] not in text or QUESTION not in text:
            raise Unusable(f"its chat template leaves out what is said, of {what}: {repair}")
    if not reader.system_prompt:
        return
    way_out = "set policy.system_prompt to null and write what it says into the prompts, or name another model"
    try:
        text = written(reader.tokenizer, messages(QUESTION, reader.system_prompt), asks=True)
    except Exception as error:
        raise Unusable(
            f"its chat template takes no turn of the system ({in_a_line(error)}), and policy.system_prompt is one: "
            f"{way_out}"
        ) from None
    if reader.system_prompt.strip() not in text:
        raise Unusable(f"its chat template leaves out the turn of the system, which policy.system_prompt is: {way_out}")


def check_tokens(reader: Reader, rows: int) -> None:
    """Raise Unusable if the tokenizer writes tokens for which the model has no embedding. rows: how many it has."""
    # A few published tokenizers know a special token more than the model, which no plain text has in it.
    added = reader.tokenizer.get_added_vocab()
    plain = [number for token, number in reader.tokenizer.get_vocab().items() if token not in added]
    highest = max(plain + encode(reader, QUESTION))
    if highest >= rows:
        raise Unusable(
            f"its tokenizer writes tokens up to {highest}, and its embedding has {rows} rows: the tokenizer is another "
            f"model's; {ANEW}"
        )


def ends_of(folder: Path, config: Any) -> list[int]:
    """The tokens at which an answer ends, by the model. Raises Unusable if they cannot be read."""
    from transformers import GenerationConfig

    there = (folder / "generation_config.json").is_file()
    try:
        given = (GenerationConfig.from_pretrained(folder) if there else config.get_text_config()).eos_token_id
        return [] if given is None else [int(end) for end in (given if isinstance(given, list) else [given])]
    except (TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"generation_config.json cannot be used ({in_a_line(error)}): correct it, or {ANEW}") from None


def check_end(ends: list[int], tokenizer: Any, rows: int) -> None:
    """Raise Unusable if no token ends an answer, when it is written or in training. rows: of the embedding."""
    name_it = "name it there as the model's card has it, or name another model"
    if not ends and tokenizer.eos_token_id is None:
        raise Unusable(
            "it has no end token, at which an answer ends: neither generation_config.json (eos_token_id) nor "
            f"tokenizer_config.json (eos_token) has one; {name_it}"
        )
    if tokenizer.eos_token_id is None and (tokenizer.pad_token_id is None or tokenizer.chat_template is None):
        raise Unusable(
            f"its tokenizer has no end token (eos_token in tokenizer_config.json), which training needs; {name_it}"
        )
    if beyond := [end for end in ends or [tokenizer.eos_token_id] if not 0 <= end < rows]:
        raise Unusable(
            f"its end token {beyond[0]} (eos_token_id in generation_config.json) is none of its {rows} tokens; "
            f"{name_it}"
        )


def check_numbers(folder: Path) -> None:
    """Raise Unusable if a weight is not a number. Reads all of them."""
    import torch
    from safetensors import safe_open

    for path in weights_of(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                weight = file.get_tensor(name)
                # A sum takes a quarter of the time of looking at each, and is finite where all of them are.
                if not weight.is_floating_point() or weight.element_size() == 1:
                    continue  # quantised: the scales beside them tell
                if weight.sum(dtype=torch.float32).isfinite():
                    continue
                if not weight.float().isfinite().all():
                    raise Unusable(f"{name} in {path.name} has values that are not finite numbers; {ANEW}")


def in_a_line(error: Exception) -> str:
    """What an error says, in a line of bearable length."""
    return " ".join((str(error) or type(error).__name__).split())[:200].rstrip(" .:")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from telling what is asked of it here: whatever is wrong is raised."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
