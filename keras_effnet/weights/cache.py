"""Where downloaded weights lie, and where they come from when there is a mirror."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "KERAS_EFFNET_CACHE"
MIRROR_VARIABLE = "KERAS_EFFNET_WEIGHTS_URL"


def cache_folder() -> Path:
    """`$KERAS_EFFNET_CACHE`, or the operating system's cache folder for this package."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("keras-effnet"))


def address_of(address: str, file: str) -> str:
    """Where to download a file: below the mirror if there is one, and then only there.

    A mirror has the layout of the cache, so a copied cache folder is a mirror.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{file}" if mirror else address
