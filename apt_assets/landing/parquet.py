"""Parquet files, decoded in a process of their own: a decoder that crashes, never ends or takes all memory is an
error here, and what it gave before that counts.

    python -P parquet.py FILE    Arrow's stream format on stdout; what is wrong with the file on stderr

That process is a fresh interpreter and no fork, which the threads of polars and torch would not survive. It
imports pyarrow alone, which takes about 0.2 s.
"""

import errno
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_RECORD = 1 << 24  # bytes of one row, in whatever format
LONGEST_WAIT = 10.0  # seconds for one batch
MOST_WAITS = 6  # of that long, if the machine is busy with something else
MOST_MEMORY = 1 << 32  # bytes of the decoder's address space
MOST_UNPACKED = 1 << 32  # bytes of all values of a file
MOST_ROWS = 50_000_000
# A file of no more rows than this may have more of them than bytes: rows that are all alike take next to none.
FEW_ROWS = 100_000
BATCH_ROWS, BATCH_BYTES = 4096, LONGEST_RECORD
ENDED_BY_OTHERS = (SIGHUP, SIGINT, SIGKILL, SIGTERM)  # SIGKILL: by Linux, which lacks memory


def read_batches(path: Path) -> "Iterator[pa.RecordBatch]":
    """The rows of a Parquet file in order. A batch without rows stands for one row above LONGEST_RECORD.

    Raises ValueError where the file cannot be read on, with the reason, and OSError where this machine is it.
    """
    import pyarrow as pa

    command = [sys.executable, "-P", __file__, str(path)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as decoder,
    ):
        watch = Watch(decoder)
        try:
            with watch:
                stream = pa.ipc.open_stream(decoder.stdout)
            while True:
                with watch:
                    batch = stream.read_next_batch()
                yield batch
        except StopIteration:
            with watch:
                decoder.wait()
        except (pa.ArrowException, OSError, ValueError):
            pass  # the stream broke off: the process tells why
        finally:
            decoder.kill()
            decoder.wait()
        if watch.ran_out:
            raise ValueError(f"nothing was read of it for {LONGEST_WAIT:.0f} s")
        if -decoder.returncode in ENDED_BY_OTHERS:
            raise OSError(errno.ENOMEM, "the process that reads it was ended: lack of memory?", str(path))
        if decoder.returncode < 0:
            raise ValueError(f"its reader crashed ({Signals(-decoder.returncode).name})")
        if decoder.returncode > 0:
            errors.seek(0)
            raise ValueError(errors.read().decode("utf-8", "replace").strip()[-500:])


class Watch:
    """Kills a process that computes for longer than LONGEST_WAIT while it is waited for.

    Time in which it was not let compute is given back, up to MOST_WAITS as long: what is found of a file is
    remembered by content, and a busy machine must not be the reason.
    """

    def __init__(self, process: subprocess.Popen[bytes]):
        self.process, self.ran_out = process, False

    def __enter__(self) -> None:
        self.ends = time.monotonic() + MOST_WAITS * LONGEST_WAIT
        self.used = computed(self.process.pid)
        self.wait(LONGEST_WAIT)

    def __exit__(self, *error: Any) -> None:
        self.timer.cancel()

    def wait(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, self.look)
        self.timer.daemon = True
        self.timer.start()

    def look(self) -> None:
        left = LONGEST_WAIT - (computed(self.process.pid) - self.used)
        if left > 1 and time.monotonic() < self.ends:
            self.wait(left)
        else:
            self.ran_out = True
            self.process.kill()


def computed(process: int) -> float:
    """Processor seconds of a process; where it cannot be known, all the time there is."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- in the process that decodes -------------------------------------------------------------------------


def send(path: str) -> None:
    """Write the file's batches to stdout. Raises ValueError above a limit, and whatever pyarrow raises."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        rows_at_once = check_footer(file.metadata, Path(path).stat().st_size)
        check_names(list(file.schema_arrow))
        schema = pa.schema([field.with_type(dense(field.type)) for field in file.schema_arrow])
        unpacked = 0
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
            # One thread: each further one reserves address space, which is limited.
            for batch in file.iter_batches(rows_at_once, use_threads=False):
                unpacked += batch.nbytes
                check_size(unpacked)
                batch.validate()
                for part in in_parts(batch if batch.schema == schema else batch.cast(schema)):
                    whole = part.num_rows > 1 or part.nbytes <= LONGEST_RECORD
                    stream.write_batch(part if whole else part.slice(0, 0))


def check_footer(footer: Any, file_bytes: int) -> int:
    """How many rows to decode at once, by what the footer declares. Raises ValueError above a limit."""
    rows = footer.num_rows
    if rows > min(MOST_ROWS, max(FEW_ROWS, file_bytes)):
        raise ValueError(f"{rows} rows in {file_bytes} bytes are more than can be read")
    declared = sum(max(0, footer.row_group(n).total_byte_size) for n in range(footer.num_row_groups))
    check_size(declared)
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, declared)))


def check_names(fields: Any, inside: str = "") -> None:
    """Raise ValueError if two columns, or two fields of a struct at any depth, have one name: one would be lost."""
    names = [inside + field.name for field in fields]
    if (name := repeated(names)) is not None:
        raise ValueError(f"the column {name!r} stands there twice: take one of them out, or rename it")
    for name, field in zip(names, fields, strict=True):
        kind = unwrapped(field.type)
        check_names([kind.field(n) for n in range(kind.num_fields)], f"{name}.")


def repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def unwrapped(kind: Any) -> Any:
    """The type of the values themselves: of an extension what it is stored as, of a dictionary what is in it."""
    while not kind.num_fields and (inner := getattr(kind, "storage_type", getattr(kind, "value_type", None))):
        kind = inner
    return kind


def check_size(unpacked: int) -> None:
    if unpacked > MOST_UNPACKED:
        raise ValueError(f"its values take more than {MOST_UNPACKED >> 30} GiB: split it")


def dense(kind: "pa.DataType") -> "pa.DataType":
    """The type without dictionaries, through which a few bytes can be a million long values."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return dense(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(dense(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(dense(field.type)) for field in kind.fields])
    return kind


def in_parts(batch: "pa.RecordBatch") -> "Iterator[pa.RecordBatch]":
    """The batch in parts of at most BATCH_BYTES, or of one row."""
    if batch.num_rows <= 1 or batch.nbytes <= BATCH_BYTES:
        yield batch
    else:
        half = batch.num_rows // 2
        yield from in_parts(batch.slice(0, half))
        yield from in_parts(batch.slice(half))


def main(path: str) -> None:
    for kind, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS knows no limit of the address space
            resource.setrlimit(kind, (most, most))
    try:
        send(path)
    except MemoryError:
        sys.exit(f"it takes more than {MOST_MEMORY >> 30} GiB of memory to read")
    except Exception as error:
        sys.exit(str(error) or type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1])
