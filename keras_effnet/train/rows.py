"""What the readers of folders and of CSV files agree on."""

from __future__ import annotations

SPLITS = ("train", "validation", "test")
UNDECIDED = -1
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}

Row = tuple[str, str, int]  # file, class, index into SPLITS or UNDECIDED
LeftOut = tuple[str, str]  # file, reason


def split_called(name: str) -> int | None:
    """The index in `SPLITS` of what people call `name`, in any case; None for other names."""
    for index, split in enumerate(SPLITS):
        if name.lower() in _NAMES[split]:
            return index
    return None
