"""The only two ways to write and read a table: both check it against the schema of its file's name.

pandera and polars are imported when a table is touched, not when a program starts.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from resources.store.stat_cache import Remembered

if TYPE_CHECKING:
    import polars as pl


# The files that this process has checked: a loop reads most of its tables several times.
known: Remembered[None] = Remembered()


class TableError(ValueError):
    """A table does not have the shape its schema promises; names the file, column and check."""


def write_table(table: "pl.DataFrame", path: Path) -> None:
    """Check `table` against the schema of its file name and write it as Parquet.

    Raises TableError, and then writes nothing; KeyError if no schema has that name.
    """
    checked(table, path).write_parquet(path, compression="zstd", statistics=False)


def read_table(path: Path) -> "pl.DataFrame":
    """Read a Parquet file that `write_table` wrote and check it again, once for as long as it does not change.

    Raises TableError, OSError.
    """
    checked_now: list[pl.DataFrame] = []
    known(str(path), lambda its: checked_now.append(checked(parquet(its), its)))
    return checked_now[0] if checked_now else parquet(path)


def parquet(path: Path) -> "pl.DataFrame":
    import polars as pl

    try:
        return pl.read_parquet(path, glob=False)  # [x] is the name of a folder
    except pl.exceptions.PolarsError as error:
        raise TableError(f"{path}: cannot be read: {error}") from None


def checked(table: "pl.DataFrame", path: Path) -> "pl.DataFrame":
    from pandera.errors import SchemaErrors

    from schemas.tables import TABLES

    try:
        return TABLES[path.stem].validate(table, lazy=True)
    except SchemaErrors as errors:
        first = errors.failure_cases.row(0, named=True)
        raise TableError(
            f"{path.name}: column {first['column']!r} fails {first['check']} "
            f"(row {first['index']}, value {first['failure_case']!r}); {errors.failure_cases.height} failures"
        ) from None
