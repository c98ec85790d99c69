"""Letting a model teach itself on a pile of pictures: sources, a recipe and a place for the result; or fitting its last
layer alone.

Rule: this conductor only introduces: the pile reads pictures, `seer_model.pretrain` and `.whitening` learn from them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.pile import Pile, open_pile

if TYPE_CHECKING:
    from seer_model.checkpoint import Checkpoint
    from seer_model.presets import PretrainSettings
    from seer_model.pretrain import PretrainReport
    from seer_model.vigil import Figures

WINDOW = 4096
"""Pictures; as squares of 256 pixels they take 0.8 GB, over all ranks."""


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """What to learn from, how, and where the model goes. None stands for the preset's own choice."""

    sources: tuple[Path, ...]
    output: Path
    """A safetensors file; the run's folder stands beside it."""
    preset: str = "mini"
    model: str | None = None
    """A model's name or file to go on from; None: random weights."""
    batch_size: int | None = None
    """The rates go with it."""
    epochs: float | None = None
    rate: float | None = None
    precision: str | None = None
    seed: int | None = None
    window: int | None = None
    """See `PretrainSettings.window`. None: among all, unless shards are far away and more than fits into memory."""
    device: str = "auto"
    workers: int | None = None
    """Decoding processes; None: one for each core."""
    exclude: tuple[str, ...] = ()
    resume: bool = False
    is_sharded: bool = False
    """Each rank holds a part of the network (FSDP2) instead of a copy (DDP)."""
    memory_bytes: int = 8 << 30
    piece_seconds: float | None = None
    save_every_seconds: float = 300
    patience_seconds: float = 600
    """How long one rank waits for another before it takes it for lost."""


@dataclass(frozen=True, kw_only=True)
class WhitenSettings:
    """Which model gets a last layer, fitted on what, and where the result goes."""

    sources: tuple[Path, ...]
    output: Path
    """A safetensors file."""
    model: str
    readout: str = "copies"
    """A name of `seer_model.whitening.FITS`."""
    numbers: int | None = None
    """Of the embedding, at most; None: the readout's own choice."""
    crops: int = 4096
    """Four for each number of an embedding, or it will have fewer."""
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    exclude: tuple[str, ...] = ()


def learn(
    settings: LearnSettings,
    *,
    on_figures: "Callable[[Figures], None]" = lambda figures: None,
    on_message: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> "PretrainReport":
    """Run, or go on with, the pretraining that the settings describe.

    Raises: SourceError, TrainingError, SettingsError, ModelError, CheckpointError, DeviceError.
    """
    # Imported here: `seer --help` loads this module, and must not wait for torch.
    from seer_model.presets import change_recipe, find_preset
    from seer_model.pretrain import RunOptions, RunWatchers, pretrain
    from seer_model.ranks import join_ranks

    recipe = change_recipe(
        find_preset(settings.preset),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        rate=settings.rate,
        precision=settings.precision,
        window=settings.window,
        seed=settings.seed,
    )
    with (
        join_ranks(settings.device, patience_seconds=settings.patience_seconds) as ranks,
        open_pile(
            settings.sources, side_px=recipe.picture_px, workers=settings.workers, exclude=settings.exclude
        ) as pile,
        _draw_curves(settings.output, on_message, is_wanted=ranks.is_first),
    ):
        if ranks.is_first:
            on_message(f"{len(pile):,} pictures")
        report = pretrain(
            pile,
            settings.output,
            _choose_window(recipe, pile, settings),
            ranks,
            source=_open_source(settings.model),
            origin=settings.model,
            resume=settings.resume,
            options=RunOptions(
                memory_bytes=settings.memory_bytes,
                piece_seconds=settings.piece_seconds,
                save_every_seconds=settings.save_every_seconds,
                is_sharded=settings.is_sharded,
            ),
            watchers=RunWatchers(on_figures=on_figures, on_message=on_message, should_stop=should_stop),
        )
        if ranks.is_first:
            _tell_bad(report.bad, pile.reasons, on_message)
        return report


def _choose_window(recipe: "PretrainSettings", pile: Pile, settings: LearnSettings) -> "PretrainSettings":
    from seer_model.feed import count_bytes

    fits = count_bytes(len(pile), recipe.picture_px) <= settings.memory_bytes
    if settings.window is not None or fits or not pile.is_remote:
        return recipe
    return replace(recipe, window=WINDOW)


def fit_layer(
    settings: WhitenSettings,
    *,
    on_message: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict | None:
    """Write the model again with a last layer that is fitted on these pictures; the rest of it stays as it is.

    Returns: `output` and `dimension` of its embedding, `path`; None when it was told to stop, and nothing was written.
    Raises: SourceError, TrainingError, SettingsError, ModelError, CheckpointError, DeviceError.
    """
    # Imported here: `seer --help` loads this module, and must not wait for torch.
    from seer_model.checkpoint import write_checkpoint
    from seer_model.ranks import choose_device
    from seer_model.readout import choose_output, measure_dimension
    from seer_model.whitening import ROWS_EACH, SIDE_PX, find_fit, whiten

    fit, device = find_fit(settings.readout, settings.numbers), choose_device(settings.device)
    source = _open_source(settings.model)
    with open_pile(settings.sources, side_px=SIDE_PX, workers=settings.workers, exclude=settings.exclude) as pile:
        on_message(f"{len(pile):,} pictures; fitting the last layer on {settings.crops:,} crops")
        how = {"device": device, "fit": fit, "seed": settings.seed, "should_stop": should_stop}
        whole = whiten(source, pile, crops=settings.crops, **how)
        _tell_bad(len(pile.reasons), pile.reasons, on_message)
    if whole is None:
        return None
    write_checkpoint(whole, settings.output)
    output = choose_output(whole.heads)
    dimension = measure_dimension(whole, output)
    if fit.numbers and dimension < fit.numbers:
        width, enough = measure_dimension(whole, replace(output, layer="")), settings.crops // ROWS_EACH
        on_message(
            f"{dimension:,} numbers instead of {fit.numbers:,}: {output.pooling.spelled} of this model has {width:,}, "
            f"and the crops that could be read are enough for {enough:,} at most."
        )
    return {"path": str(settings.output), "output": str(output), "dimension": dimension}


def _tell_bad(count: int, reasons: dict[str, str], on_message: Callable[[str], None]) -> None:
    for name, reason in list(reasons.items())[:1]:
        on_message(f"bad pictures so far: {count:,}, such as {name}: {reason}")


@contextmanager
def _draw_curves(output: Path, on_message: Callable[[str], None], *, is_wanted: bool) -> Iterator[None]:
    """Draw the run when its log has grown; also one that fails, for its curves show what went wrong."""
    from seer_model.run_folder import RunFolder

    run = RunFolder(output)
    before = run.read_log()
    try:
        yield
    finally:
        if is_wanted and (lines := run.read_log()) and lines != before:
            # In the folder that is ours: beside the output a picture of this name may be a person's own.
            _draw(lines, run.folder / "curves.png", on_message)


def _draw(lines: list[dict], target: Path, on_message: Callable[[str], None]) -> None:
    from indexer.curves import plot_run

    try:
        plot_run(lines, target)
        on_message(f"curves: {target}")
    except (ImportError, OSError) as error:
        # The model is worth more than its picture.
        on_message(f"the curves were not drawn: {error}")


def _open_source(model: str | None) -> "Checkpoint | None":
    from seer_model.checkpoint import read_checkpoint
    from seer_model.zoo import find_model

    return None if model is None else read_checkpoint(find_model(model).path)
