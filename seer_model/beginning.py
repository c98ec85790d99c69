"""How a piece of a run begins: is there one to go on with, is it this one, and are all ranks about the same?

Rule: the first rank decides, and all ranks hear what; nothing is trained before all are of one mind.
"""

from seer_model.errors import TrainingError
from seer_model.presets import read_settings
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder, SavedStep


def open_run(folder: RunFolder, description: dict, ranks: Ranks, *, resume: bool) -> SavedStep | None:
    """Begin a run, or find where to go on with the one that is there; collective.

    Args:
        description: the recipe, the pictures and the start, JSON-able.
        resume: go on with the run that lies there. A run that the same torchrun has begun is gone on with in any case:
            it has started its ranks again.
    Returns: where to go on; None for a run that has just been begun.
    Raises: TrainingError when that is another run, or the ranks differ in what they are to do or in what they see.
    """
    _require_one_mind(description, ranks)
    found = []
    ranks.let_first(lambda: found.append(_begin_or_find(folder, description, ranks.launch, resume)))
    step = ranks.share_first(found[0].step if found and found[0] else None)
    if ranks.count > 1 and not folder.is_seen_by(ranks):
        raise TrainingError(f"Not all ranks see {folder.folder}. Put --output on a disk that all nodes share.")
    if ranks.is_first or step is None:
        return found[0] if found else None
    return folder.load(step)


def _require_one_mind(description: dict, ranks: Ranks) -> None:
    differs = ranks.share_first(description) != description
    if others := sorted(ranks.unite_over({ranks.rank} if differs else set())):
        raise TrainingError(
            f"Ranks {', '.join(map(str, others))} have another recipe or other pictures than rank 0. Give all nodes "
            "the same command, and the same pictures in the same order."
        )


def _begin_or_find(folder: RunFolder, description: dict, launch: str, resume: bool) -> SavedStep | None:
    """On the first rank."""
    if not folder.has_checkpoint or not (resume or _has_begun(folder, launch)):
        folder.begin(description | {"launch": launch})
        return None
    _require_same(folder.read_settings(), description, folder)
    saved = folder.load_newest()
    folder.cut_log(saved.step)
    return saved


def _has_begun(folder: RunFolder, launch: str) -> bool:
    """Whether the torchrun of this name has begun the run in the folder."""
    return launch != "" and folder.read_settings().get("launch") == launch


def _require_same(before: dict, now: dict, folder: RunFolder) -> None:
    """A resumed run is the same run: same recipe, same pictures, same start."""
    settings = read_settings(before["settings"]).describe()
    # Runs from before there was a whitening get the one that their recipe has now.
    settings |= {key: now["settings"][key] for key in ("whitening_crops",) if key not in before["settings"]}
    before = before | {"settings": settings}
    if different := [key for key in now if before.get(key) != now[key]]:
        details = _name_differences(before["settings"], now["settings"]) if "settings" in different else different
        raise TrainingError(
            f"{folder.folder} holds another run: {', '.join(details)} differ. Give what the run began with "
            f"(see settings.json there), or choose another --output."
        )


def _name_differences(before: dict, now: dict) -> list[str]:
    return [f"{key} ({before.get(key)} then, {now[key]} now)" for key in now if before.get(key) != now[key]]
