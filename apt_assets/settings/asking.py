"""What is asked, who answers, and where similar rows are looked for; provenance: experiment.py."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from resources.section import Fraction, Section


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

    url: str | None = Field(
        None,
        pattern=r"^https?://[^@/?#\s]+([/?#]\S*)?$",
        description="Up to and with /v1, without a name or password: a key is in $APT_SERVER_KEY.",
    )
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


class Retrieval(Section):
    """Similar cases: nearest training rows of each bad case, cosine similarity."""

    choose: Literal["similar", "random"] = Field(
        "similar",
        description="random: as many rows drawn by hash in their place, to tell what similarity adds (choice).",
    )
    encoder: str = Field("embedded", description="embedded, or a sentence-transformers folder or id.")
    per_case: int = Field(2, ge=0, description="Neighbours per bad case, k (choice).")
    batch_size: int = Field(64, ge=1, description="Texts embedded at once.")
