"""What a checkpoint says of its split: how many images, and the keys of their content."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datamodules.blocks import SPLITS, ImageDataset
from datamodules.errors import DataError


def record_splits(splits: Mapping[str, ImageDataset]) -> dict[str, Any]:
    """The number of images of each split, and under `keys` their keys [N], where the data set has keys."""
    keys = {split: dataset.keys for split, dataset in splits.items() if dataset.keys is not None}
    return {split: len(dataset) for split, dataset in splits.items()} | ({"keys": keys} if keys else {})


def lineage(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record, that of the weights which its training began with, if it has one, and so on."""
    records = [record]
    while "initial" in records[-1]:
        records.append(records[-1]["initial"])
    return records


def check_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record from an untrusted checkpoint; an empty one if there is none.

    Raises:
        DataError: it is something else than a record.
    """
    keys = record.get("keys", {}) if isinstance(record, Mapping) else None
    is_valid = (
        isinstance(keys, Mapping)
        and {*record} - {"keys", "initial"} in (set(), {*SPLITS})
        and keys.keys() in (set(), {*SPLITS})
        and all(isinstance(size, int) for split, size in record.items() if split in SPLITS)
        and all(is_key_tensor(value) and value.shape == (record[split],) for split, value in keys.items())
    )
    if not is_valid:
        raise DataError("The checkpoint's record of its split is damaged.")
    return dict(record) | ({"initial": check_record(record["initial"])} if "initial" in record else {})


def is_key_tensor(value: Any) -> bool:
    """Whether a value holds its numbers itself: one that is expanded or sparse may stand for more than memory holds."""
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided and value.is_contiguous()
    return is_dense and not value.is_meta and value.dtype == torch.int64


def describe_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How the split differs from that of a record, in words; None if it does not, as far as the record knows."""
    if "keys" in then and "keys" in now:
        if all(torch.equal(then["keys"][split], now["keys"][split]) for split in SPLITS):
            return None
        before, after = (
            {key: split for split in SPLITS for key in part["keys"][split].tolist()} for part in (then, now)
        )
        moved = sum(before[key] != after[key] for key in before.keys() & after.keys())
        gone, new = len(before.keys() - after.keys()), len(after.keys() - before.keys())
        if gone or new or moved:
            return f"images: {gone} gone, {new} new, {moved} in another split"
    sizes = [
        f"{then[split]:,} {split} then, {now[split]:,} now"
        for split in SPLITS
        if then.get(split, now[split]) != now[split]
    ]
    return f"images: {'; '.join(sizes)}" if sizes else None


def held_out(splits: Mapping[str, ImageDataset], then: Mapping[str, Any]) -> dict[str, ImageDataset]:
    """The splits: validation without images that are trained on, test without those and the ones that validate.

    Args:
        then: a record, whose images count as well, with those of its lineage, or an empty one.
    """
    kept, seen = {}, torch.empty(0, dtype=torch.int64)
    for split, dataset in splits.items():
        kept[split] = dataset
        if dataset.keys is not None:
            if split != "train" and (known := torch.isin(dataset.keys, seen)).any():
                kept[split] = dataset.subset(~known)
            known_keys = [record["keys"][split] for record in lineage(then) if "keys" in record]
            seen = torch.cat([seen, dataset.keys, *known_keys])
    return kept
