"""A folder of a data set -> one Parquet file that lands like any other.

Three kinds: what Hugging Face `datasets` saves with save_to_disk, a Dataset or a DatasetDict, and a folder
of Parquet files. Columns stay as they are; the name of a split becomes the column `split`, and the number
of a class its name.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.landing.parquet import LONGEST_RECORD, read_batches
from apt_assets.landing.side_fields import SPLIT_WORDS, SPLITS, split_of
from apt_assets.settings.experiment import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

# How the hub names the files of a split: train-00000-of-00002.parquet.
SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")
# And the folder of one, in the files that it makes of any data set: default/train/0000.parquet.
HUB_FOLDER = re.compile(rf"(?:partial-)?(?P<split>{'|'.join(SPLIT_WORDS)})")


def write_parquet(folder: Path, target: Path) -> None:
    """Write all rows of a data set folder to `target`. Raises UsageError if it is no such folder, has a
    split of another name than ours, or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        rows = pa.concat_tables(tables_of(folder), promote_options="permissive")
    except UsageError:
        raise
    except Exception as error:  # `datasets` takes for granted what its files say: a KeyError, an AttributeError, ...
        raise UsageError(f"{folder}: cannot be read as a data set: {error}") from None
    try:
        parquet.write_table(rows, target)
    except pa.ArrowException as error:  # a type that Parquet does not have; a full disk is an OSError
        raise UsageError(f"{folder}: cannot be read as a data set: {error}") from None


def tables_of(folder: Path) -> "Iterator[pa.Table]":
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if (folder / "dataset_dict.json").is_file():
        from datasets import DatasetDict

        for split, dataset in DatasetDict.load_from_disk(folder).items():
            yield in_split(with_class_names(dataset), split, folder)
    elif (folder / "dataset_info.json").is_file():
        from datasets import Dataset

        yield with_class_names(Dataset.load_from_disk(folder))
    elif files:
        by_folder = [HUB_FOLDER.fullmatch(file.parent.name) for file in files if file.parent != folder]
        splits = {split_of(found["split"]) for found in by_folder if found}
        whole = len(by_folder) == len(files) and all(by_folder) and "train" in splits
        for file in files:
            named = SHARD.fullmatch(file.stem) or (HUB_FOLDER.fullmatch(file.parent.name) if whole else None)
            split = named["split"] if named else file.stem if split_of(file.stem) else None
            table = read_table(file)
            yield table if split is None else in_split(table, split, folder)
    else:
        raise UsageError(f"{folder}: holds neither a data set of `datasets` (save_to_disk) nor Parquet files")


def read_table(file: Path) -> "pa.Table":
    """All rows of a Parquet file. Raises ValueError if it cannot be read, or has a row above LONGEST_RECORD."""
    import pyarrow as pa

    batches = list(read_batches(file))
    if any(batch.num_rows == 0 for batch in batches):
        raise ValueError(f"{file.name}: a row is longer than {LONGEST_RECORD >> 20} MiB")
    return pa.Table.from_batches(batches)


def in_split(table: "pa.Table", split: str, folder: Path) -> "pa.Table":
    """The table with the split's name in every row that says none in a column `split` of its own."""
    import pyarrow as pa

    own = table.column("split") if "split" in table.column_names else None
    if own is not None and (own.null_count == 0 or not (pa.types.is_string(own.type) or pa.types.is_null(own.type))):
        return table
    meant = split_of(split)
    if meant is None:
        raise UsageError(
            f"{folder}: has a split {split!r}, but a split is one of {', '.join(SPLITS)}: "
            "rename it, or land that part alone, to be split by content"
        )
    if own is None:
        return table.append_column("split", pa.array([meant] * table.num_rows, pa.string()))
    filled = pa.array([meant if its is None else its for its in own.to_pylist()], pa.string())
    return table.set_column(table.column_names.index("split"), "split", filled)


def with_class_names(dataset: object) -> "pa.Table":
    """The table of a `datasets.Dataset`, with the names of classes in place of their numbers."""
    import pyarrow as pa
    from datasets import ClassLabel, Dataset

    assert isinstance(dataset, Dataset)
    table: pa.Table = dataset.data.table
    table.validate(full=True)  # an Arrow file is mapped as it is, and a damaged one would end this process
    for place, (name, feature) in enumerate(dataset.features.items()):
        if isinstance(feature, ClassLabel):
            numbers = table.column(name).to_pylist()
            # -1 is what `datasets` writes for a row without a label.
            names = [None if n is None or n < 0 else feature.names[n] for n in numbers]
            table = table.set_column(place, name, pa.array(names, pa.string()))
    return table
