"""Whether a training step fits into the memory that is left, and what is done where it does not."""

from pathlib import Path
from typing import Any

from resources.model.device_memory import free_memory
from resources.model.memory import Held, Pass, UnknownSizes, sizes_of, to_train, weights
from resources.model.no_room import Tell
from resources.training.anchor import Anchor
from resources.training.parts import Checkpointing, Parts
from resources.training.recipe import TrainingRecipe
from resources.training.together import Together


def in_parts(
    trainer: Any, model_dir: Path, recipe: TrainingRecipe, anchor: Anchor | None, tell: Tell, together: Together
) -> Parts:
    """Let a trainer make its steps in as many passes as memory asks for, and keep less of each where the recipe says
    so, or leaves it open and a whole step would not fit."""
    checkpointing = Checkpointing(trainer, may=recipe.gradient_checkpointing != "off")
    pairs = together.most_of(recipe.batch_size)
    tight = not would_fit(trainer.train_dataset, model_dir, recipe, anchor, pairs)
    if recipe.gradient_checkpointing == "on" or together.any(tight, trainer.model.device):
        checkpointing.turn_on()
    return Parts(trainer, pairs, checkpointing, tell, together)


def would_fit(dataset: Any, model_dir: Path, recipe: TrainingRecipe, anchor: Anchor | None, pairs: int) -> bool:
    """Whether a pass of so many of the longest pairs fits into the memory that is left, as far as that is known."""
    rows = []
    for example in dataset:
        prompt, *answers = (len(example[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))
        answers = [min(answer, recipe.max_length - prompt) for answer in answers]
        rows.append((prompt + sum(answers), sum(answers)))
    longest = sorted(rows, reverse=True)[:pairs]
    texts = sorted((len(text.ids), text.said) for text in anchor.texts)[-anchor.texts_per_step :] if anchor else []
    held = Held(recipe.dtype, recipe.quantization, recipe.device)
    try:
        sizes = sizes_of(model_dir)
    except UnknownSizes:
        return True
    needed = to_train(
        sizes,
        held,
        Pass(tuple(length for length, _ in (*longest, *texts))),
        rank=recipe.lora_rank,
        targets=recipe.lora_targets,
        answers=sum(answers for _, answers in longest),
        anchors=sum(said for _, said in texts),
        checkpointing=False,
    )
    free = free_memory(recipe.device)
    return free is None or needed - weights(sizes, held) <= free  # the weights are there already
