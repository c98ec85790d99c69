"""The models that have a name: what they are, on which terms, where their weights come from and where they lie here.

    SEER_HOME/models/NAME/
      model.safetensors     the weights, in our own layout (a file of another layout put here by hand is read too)
      model.json            written by `fetch`: source, licence, date, size and SHA-256

Rule: a table and look-ups; nothing is downloaded and no weights are opened here. Adding a model is adding a line.
Source: spec/seer.md, 1.3, 2.1 and 2.2.
"""

import difflib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from seer_model.errors import CheckpointError, ModelMissing, ModelUnknown
from seer_model.outputs import OWN, Asked, read_asked, require_asked

DEFAULT_MODEL = "seer-mini"
BUNDLED_WEIGHTS = Path(__file__).parent / "weights" / f"{DEFAULT_MODEL}.safetensors"
BEHIND = "#"
"""Between a model's name or path and the readout that is asked for (see `outputs`)."""
WEIGHTS, RECORD = "model.safetensors", "model.json"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".torch")
VISSL_ZOO = "https://dl.fbaipublicfiles.com/vissl/model_zoo"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The terms of a model's weights."""

    name: str
    summary: str
    address: str
    """Where the whole text is."""
    notice: str = ""
    """A sentence that has to go with every copy."""
    must_accept: bool = False


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A file of a Hugging Face repository; a name ending in `.index.json` brings the files that it lists."""

    repo_id: str
    filename: str = "model.safetensors"

    @property
    def address(self) -> str:
        """Where a browser downloads the file."""
        return f"https://huggingface.co/{self.repo_id}/resolve/main/{self.filename}"


@dataclass(frozen=True, kw_only=True)
class UrlSource:
    """A file at an address."""

    address: str

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of the table."""

    name: str
    architecture: str
    """A name of `regnet.ARCHITECTURES`. A promise only: what is in the file is read from its weights."""
    dimension: int
    parameters: int
    """Of the trunk; four bytes each in our files, but for the bundled one, which has two for most."""
    licence: Licence
    sources: tuple[HubSource | UrlSource, ...] = ()
    """Where the weights are published, the preferred first; none for the bundled model."""
    preprocessing: str = "vissl"

    @property
    def is_bundled(self) -> bool:
        return not self.sources


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model that can be opened."""

    name: str
    """As it was given."""
    path: Path
    """File or folder of its weights."""
    entry: ModelEntry | None
    """None for a file of the person's own."""
    asked: Asked = OWN
    """Which of its readouts makes the embedding."""
    stamps: tuple[tuple, ...] = ()
    """(name, bytes, mtime in nanoseconds, inode) of each of its files, before any was opened."""

    @property
    def preprocessing(self) -> str:
        return self.entry.preprocessing if self.entry else "vissl"


OURS = Licence(
    name="the project's own",
    summary="Made by this project; the project's terms cover it.",
    address="README.md",
)
MIT = Licence(
    name="MIT",
    summary="Free for any use; copies keep the copyright notice.",
    address="https://github.com/facebookresearch/pycls/blob/main/LICENSE",
)
SEER = Licence(
    name="SEER licence (Meta): non-commercial research only",
    summary=(
        "Meta lends these weights for research without commercial purpose, and may take that back. Not allowed, among "
        "others: products and production, military and police work, border control, surveillance, biometrics, telling "
        "who a person is or guessing sensitive traits. The limits hold for what the weights put out, too: embeddings "
        "made with them may be used on the same terms only. Who passes the weights on passes on the licence and notice."
    ),
    address="https://github.com/facebookresearch/vissl/blob/main/projects/SEER/MODEL_LICENSE.md",
    notice="SEER is licensed under SEER license, Copyright (c) Meta Platforms, Inc. All Rights Reserved.",
    must_accept=True,
)


def _describe_seer(
    name: str, architecture: str, dimension: int, parameters: int, *sources: HubSource | UrlSource
) -> ModelEntry:
    return ModelEntry(
        name=name,
        architecture=architecture,
        dimension=dimension,
        parameters=parameters,
        licence=SEER,
        sources=sources,
    )


def _describe_regnety(size: str, timm_number: str, dimension: int, parameters: int) -> ModelEntry:
    return ModelEntry(
        name=f"regnety-{size.lower()}",
        architecture=size,
        dimension=dimension,
        parameters=parameters,
        licence=MIT,
        sources=(HubSource(repo_id=f"timm/regnety_{timm_number}.pycls_in1k"),),
    )


def _address(path: str) -> UrlSource:
    return UrlSource(address=f"{VISSL_ZOO}/{path}")


ENTRIES = (
    ModelEntry(name=DEFAULT_MODEL, architecture="800MF", dimension=1024, parameters=5_494_168, licence=OURS),
    _describe_seer(
        *("seer-32gf", "32GF", 3712, 141_333_770),
        HubSource(repo_id="timm/regnety_320.seer"),
        _address("seer_regnet32d/seer_regnet32gf_model_iteration244000.torch"),
    ),
    _describe_seer(
        *("seer-64gf", "64GF", 4920, 276_457_786),
        HubSource(repo_id="timm/regnety_640.seer"),
        _address("seer_regnet64/seer_regnet64gf_model_final_checkpoint_phase0.torch"),
    ),
    _describe_seer(
        *("seer-128gf", "128GF", 7392, 637_419_894),
        HubSource(repo_id="timm/regnety_1280.seer"),
        _address(
            "swav_ig1b_regnet128Gf_cnstant_bs32_node16_sinkhorn10_proto16k_syncBN64_warmup8k/"
            "model_final_checkpoint_phase0.torch"
        ),
    ),
    _describe_seer(
        *("seer-256gf", "256GF", 10444, 1_272_156_138),
        _address(
            "swav_ig1b_cosine_rg256gf_noBNhead_wd1e5_fairstore_bs16_node64_sinkhorn10_proto16k_apex_syncBN64_warmup8k/"
            "model_final_checkpoint_phase0.torch"
        ),
    ),
    _describe_seer(
        *("seer-10b", "10B", 28280, 9_323_934_872),
        HubSource(repo_id="facebook/regnet-y-10b-seer", filename="pytorch_model.bin.index.json"),
        _address("seer_regnet10B/model_iteration124500_conso.torch"),
    ),
    _describe_regnety("400MF", "004", 440, 3_903_144),
    _describe_regnety("600MF", "006", 608, 5_446_160),
    _describe_regnety("800MF", "008", 768, 5_494_168),
    _describe_regnety("1.6GF", "016", 888, 10_313_430),
    _describe_regnety("3.2GF", "032", 1512, 17_923_338),
    _describe_regnety("4GF", "040", 1088, 19_557_656),
    _describe_regnety("6.4GF", "064", 1296, 29_286_252),
    _describe_regnety("8GF", "080", 2016, 37_163_068),
    _describe_regnety("12GF", "120", 2240, 49_581_544),
    _describe_regnety("16GF", "160", 3024, 80_565_140),
    _describe_regnety("32GF", "320", 3712, 141_333_770),
)
MODELS = {entry.name: entry for entry in ENTRIES}


def read_home() -> Path:
    """The folder for our models and collections: `SEER_HOME`, or the platform's place for user data; not made here."""
    given = os.environ.get("SEER_HOME")
    return Path(given) if given else Path(platformdirs.user_data_dir("seer", appauthor=False))


def models_folder() -> Path:
    """The folder that holds a folder for each fetched model; not made here."""
    return read_home() / "models"


def list_models() -> list[tuple[ModelEntry, bool]]:
    """Every entry of the table, and whether it is on this computer."""
    return [(entry, _is_here(entry)) for entry in ENTRIES]


def _is_here(entry: ModelEntry) -> bool:
    return BUNDLED_WEIGHTS.is_file() if entry.is_bundled else _find_weights(entry.name) is not None


def find_entry(name: str) -> ModelEntry:
    """The table's entry of this name.

    Raises: ModelUnknown, with the names that are close, or because it is the path of something.
    """
    if name in MODELS:
        return MODELS[name]
    if _find_path(name):
        raise ModelUnknown(f"{name!r} is a path, not a model's name. It needs no fetching: use it as --model {name}")
    close = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5)
    hint = f"Close names: {', '.join(close)}." if close else "`seer models list` shows the names."
    raise ModelUnknown(f"There is no model {name!r}, and no file lies there. {hint}")


def find_model(name: str | Path) -> FoundModel:
    """A model by its name in the table, or by the path of a file or folder of weights; behind either may stand `#` and
    the readout that is asked for.

    Raises: ModelUnknown, also for a readout; ModelMissing when its weights are not on this computer; CheckpointError
        when they changed since they were fetched.
    """
    given, behind = _split_reference(str(name))
    found, asked = _find_weights_of(given), require_asked(behind) if behind else OWN
    return replace(found, name=str(name), asked=asked, stamps=_read_stamps(found.path))


def _read_stamps(path: Path) -> tuple[tuple, ...]:
    folder = path if path.is_dir() else path.parent if path.name in INDEXES else None
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder else [path]
    known = [(file.name, file.stat()) for file in files]
    return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in known)


def complete_reference(name: str) -> str:
    """A model as it can be kept: a file by its whole path, for the next command may be run from another folder."""
    given, behind = _split_reference(name)
    if given in MODELS or not (path := _find_path(given)):
        return name
    return f"{path.resolve()}{BEHIND if behind else ''}{behind}"


def _split_reference(name: str) -> tuple[str, str]:
    """The name or path, and what stands behind it. A file whose own name has a `#` in it is meant itself."""
    given, _, behind = name.rpartition(BEHIND)
    is_whole = not (given and behind) or _find_path(name)
    is_model = given in MODELS or _find_path(given) or read_asked(behind)
    return (given, behind) if is_model and not is_whole else (name, "")


def _find_weights_of(given: str) -> FoundModel:
    if given not in MODELS and (path := _find_path(given)):
        return FoundModel(name=given, path=path, entry=None)
    entry = find_entry(given)
    if entry.is_bundled:
        if not BUNDLED_WEIGHTS.is_file():
            raise ModelMissing(f"{BUNDLED_WEIGHTS} is missing: this installation is not whole. Install seer again.")
        return FoundModel(name=given, path=BUNDLED_WEIGHTS, entry=entry)
    path = _find_weights(given)
    if path is None:
        raise ModelMissing(f"The model {given} is not on this computer. Get it with: seer models fetch {given}")
    _check_unchanged(path)
    return FoundModel(name=given, path=path, entry=entry)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_path(given: str) -> Path | None:
    """The file or folder that a person may have meant; None when nothing lies there, or nothing could."""
    try:
        path = Path(given).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None  # A name that is too long, has a NUL, or begins with the home of nobody.


def _find_weights(name: str) -> Path | None:
    """The weights in a model's folder: ours, else an index of shards, else the one file that a person put there."""
    folder = models_folder() / name
    for preferred in (WEIGHTS, *INDEXES):
        if (folder / preferred).is_file():
            return folder / preferred
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    weights = [file for file in files if file.suffix in SUFFIXES and not file.name.startswith(".")]
    return weights[0] if weights else None


def _check_unchanged(path: Path) -> None:
    """Compare a fetched file with its record: the stamp, and only where that differs the hash."""
    record_path = path.with_name(RECORD)
    if path.name != WEIGHTS or not record_path.is_file():
        return
    try:
        record, found = json.loads(record_path.read_text(encoding="utf-8")), path.stat()
        if (found.st_size, found.st_mtime_ns) == (record["size_bytes"], record["mtime_ns"]):
            return
        is_same = found.st_size == record["size_bytes"] and hash_file(path) == record["sha256"]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{record_path} is damaged: {error!r}. Fetch the model again.") from error
    if not is_same:
        raise CheckpointError(f"{path} is not what was fetched: its content has changed. Fetch the model again.")
