"""The sentence encoder: texts in, unit vectors out, each depending on its text alone."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.model.control_tokens import without_merge_dropout
from resources.model.packing import round_up
from resources.store.rows import Batches

if TYPE_CHECKING:
    import numpy as np

TOKENIZED = 65_536  # texts whose lengths are worked out at once: not all token ids need be in memory


class Encoder:
    """A sentence-transformers model; vectors are float32 with length 1.

    cut: how many of the texts so far were longer than `most_tokens`, so that their vectors are of their beginnings.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 64):
        from sentence_transformers import SentenceTransformer

        attention = {"attn_implementation": "eager"} if device == "cpu" else {}
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            # In its weights' own 16 bits, a length of 1 would be rounded, and what is nearest with it.
            model_kwargs={"use_safetensors": True, "dtype": "float32", **attention},
        )
        self._model.float()  # modules that the dtype is not handed to
        without_merge_dropout(self._model.tokenizer)
        self.modules = list(self._model.children())
        self.most_tokens = self._model.max_seq_length or 512
        if (room := min(map(positions_of, self._model.modules()))) < self.most_tokens:
            self.most_tokens = self._model.max_seq_length = room
        self.cut = 0
        self._batch_size = batch_size
        # Texts of one length share a batch, so none is padded, and a vector depends on its text alone, to
        # the last bit: on a CPU whatever the number of rows (resources.model.packing.shape_free), elsewhere
        # because all batches are filled up to the same.
        self._unit = 8 if device == "cpu" else batch_size

    def embed(self, texts: Sequence[str]) -> "Batches[np.ndarray]":
        """The vector of every text, (dimensions,), batch by batch."""
        import numpy as np

        for start in range(0, len(texts), TOKENIZED):
            part = list(texts[start : start + TOKENIZED])
            lengths = self._lengths(part)
            self.cut += sum(length > self.most_tokens for length in lengths)
            for rows in batches_by_length([min(n, self.most_tokens) for n in lengths], self._batch_size):
                filled = rows + rows[:1] * (round_up(len(rows), self._unit) - len(rows))
                vectors = self._model.encode(
                    [part[i] for i in filled],
                    batch_size=self._batch_size,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
                yield [start + i for i in rows], list(vectors[: len(rows)].astype(np.float32, copy=False))

    def _lengths(self, texts: list[str]) -> list[int]:
        tokenizer = self._model.tokenizer
        if not callable(tokenizer):  # of static embeddings, whose own is that of `tokenizers`
            return [len(its.ids) for its in tokenizer.encode_batch(texts)]
        return [len(ids) for ids in tokenizer(texts)["input_ids"]]


def positions_of(module: Any) -> float:
    """How many tokens a module has positions for. Of the kind of RoBERTa those up to the padding's are not used, which
    sentence-transformers does not count off where the encoder's files name no length."""
    table: Any = getattr(module, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return math.inf if padding is None else table.num_embeddings - padding - 1


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions by batch, longest first: of one length only, at most `batch_size` of them."""
    by_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_length.setdefault(length, []).append(position)
    for length in sorted(by_length, reverse=True):
        rows = by_length[length]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]
