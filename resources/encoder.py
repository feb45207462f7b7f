"""The sentence encoder: texts in, unit vectors out, each depending on its text alone."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resources.packing import WIDTH, round_up

if TYPE_CHECKING:
    import numpy as np


class Encoder:
    """A sentence-transformers model; vectors are float32 with length 1."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 64):
        from sentence_transformers import SentenceTransformer

        attention = {"attn_implementation": "eager"} if device == "cpu" else {}
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=attention)
        # Fixed shapes: a vector then depends on its text alone, to the last bit.
        self._model[0].processing_kwargs = {"text": {"pad_to_multiple_of": WIDTH}}
        self._batch_size = batch_size

    @property
    def dimensions(self) -> int:
        return int(self._model.get_embedding_dimension() or 0)

    def embed(
        self,
        texts: Sequence[str],
        progress: Callable[[int], None] = lambda done: None,
        on_batch: Callable[[list[int], "np.ndarray"], None] = lambda rows, vectors: None,
    ) -> "np.ndarray":
        """(texts, dimensions), in the order of `texts`. `on_batch` gets positions and vectors."""
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        limit = self._model.max_seq_length or 512
        lengths = [min(len(ids), limit) for ids in self._model.tokenizer(list(texts))["input_ids"]] if texts else []
        done = 0
        for _, rows in batches_by_width(lengths, self._batch_size):
            filled = rows + rows[:1] * (self._batch_size - len(rows))
            vectors[rows] = self._model.encode(
                [texts[i] for i in filled],
                batch_size=self._batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )[: len(rows)]
            on_batch(rows, vectors[rows])
            done += len(rows)
            progress(done)
        return vectors


def batches_by_width(lengths: Sequence[int], batch_size: int) -> Iterator[tuple[int, list[int]]]:
    """(padded width, positions) batches: width is a length rounded up to 16, widest first.

    Rows of one width only share a batch, at most `batch_size` of them.
    """
    by_width: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_width.setdefault(round_up(max(length, 1), WIDTH), []).append(position)
    for width in sorted(by_width, reverse=True):
        rows = by_width[width]
        for start in range(0, len(rows), batch_size):
            yield width, rows[start : start + batch_size]
