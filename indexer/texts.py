"""What the commands say: builds, collections and answers, as lines for a person and as JSON-able values for programs.

Rule: text out of plain data; nothing is asked of a collection here, and nothing is printed.
"""

import base64
import os
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from indexer.collection import Answer, CollectionStatus, Neighbour, UnsearchableFile
from indexer.engine_publish import PublicationReport
from indexer.estimate import Estimate
from indexer.graph import GraphReport
from indexer.layout import LOG
from indexer.report import BuildReport
from indexer.survey import SurveyReport
from indexer.terminal import show_duration
from indexer.urls import spell


def show_report(report: BuildReport, place: Path) -> str:
    """What a build did, in a few lines."""
    changes = (
        f"{report.embedded:,} embedded, {report.unchanged:,} unchanged, {report.moved:,} moved or copied, "
        f"{report.removed:,} removed"
    )
    lines = [f"{show_count(report.images, 'image')} can be searched ({changes}) in {show_duration(report.seconds)}."]
    if not report.found:
        lines.append(f"There are no pictures in these folders ({show_count(report.ignored, 'other file')}).")
    for glob in report.unmatched:
        lines.append(
            f"Nothing matches --exclude {shlex.quote(escape(glob))}: it is compared with names, with paths below a "
            "picture folder, and with whole paths."
        )
    if report.unreadable:
        there = show_count(report.unreadable, "place")
        why = f"({escape(report.unreadable_because).rstrip('.')})"
        lines.append(f"{there} could not be looked at {why}; what is known of it stays as it is. See {place / LOG}")
    if report.shards:
        them = "is passed over; give it as a source" if report.shards == 1 else "are passed over; give them as sources"
        lines.append(f"{show_count(report.shards, 'tar shard')} in these folders {them}.")
    if report.absent:
        there = f"{show_count(report.absent, 'file')} that lists name {'is' if report.absent == 1 else 'are'} not there"
        lines.append(f"{there}; {place / LOG} names them.")
    if report.pending:
        lines.append(f"{show_count(report.pending, 'file')} still to be read; run again to go on.")
    if report.failed:
        told = f"seer status --collection {shlex.quote(show_path(place))}"
        lines.append(f"{show_count(report.failed, 'file')} cannot be searched; the reasons: {told}")
    if report.chosen:
        lines.append(f"Search: {report.chosen}.")
    return "\n".join([*lines, f"Collection: {show_path(place)}"])


def show_estimate(estimate: Estimate) -> str:
    """What a build would take, in a few lines."""
    lines = [f"{show_count(estimate.found, 'file')} found, {estimate.waiting:,} to be read."]
    if estimate.tried:
        limit = f"; {estimate.limit} limits" if estimate.limit else ""
        lines += [
            f"Tried {show_count(estimate.tried, 'file')}: {estimate.images_per_second:.1f}/s{limit}; "
            f"{estimate.failed} cannot be searched.",
            f"Time    about {show_duration(estimate.seconds)}",
            f"Disk    about {show_bytes(estimate.disk_bytes)}; {show_bytes(estimate.free_bytes)} are free",
        ]
    if estimate.memory_bytes:
        lines.append(f"Memory  about {show_bytes(estimate.memory_bytes)}, however many files there are")
    return "\n".join([*lines, "Nothing was changed."])


def show_graph(report: GraphReport) -> str:
    """What a run for the neighbour graph did, in a line."""
    took = f"in {show_duration(report.seconds)}"
    if report.pending:
        return f"{report.linked:,} rows linked {took}; {report.pending:,} are left: run seer graph again to go on."
    done = f"{report.linked:,} rows linked {took}" if report.linked else "nothing was left to do"
    return (
        f"Generation {report.generation}: {show_count(report.neighbours, 'neighbour')} for each of "
        f"{show_count(report.rows, 'row')}, recall {report.recall:.3f} ({done})."
    )


def show_publication(report: PublicationReport) -> str:
    """What a publication in another search engine did, in a line."""
    took = f"in {show_duration(report.seconds)}"
    if report.recall is None:
        left = f"{report.pending:,} are left" if report.pending else "their index is left"
        return f"{report.written:,} rows written {took}; {left}: run seer publish again to go on."
    done = f"{report.written:,} rows written {took}" if report.written else "no row was left to write"
    return (
        f"{report.engine} answers with generation {report.generation}, {show_count(report.rows, 'row')}: "
        f"{report.index}, recall {report.recall:.3f} with {report.candidates} candidates ({done})."
    )


def show_survey(report: SurveyReport) -> str:
    """What a run for the survey made, in a line."""
    made = f"{', '.join(report.made)} made in {show_duration(report.seconds)}"
    done = made if report.made else "nothing was left to do"
    left = f" Missing: {', '.join(report.missing)}; run seer survey again." if report.missing else ""
    return f"Generation {report.generation}, {show_count(report.images, 'image')}: {done}.{left}"


def show_bytes(count: int) -> str:
    """A size for people: 12 MB, 1.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def show_status(told: CollectionStatus) -> str:
    """A collection in a few lines."""
    index = _show_index(told) if told.index else "nothing published yet; run: seer build"
    lines = {
        "collection": show_path(told.folder),
        "folders": ", ".join(show_path(folder) for folder in told.folders),
        "excluded": ", ".join(map(escape, told.excluded)),
        "images": f"{told.images} searchable, from {show_count(told.files, 'file')} "
        f"({told.failed} failed, {told.pending} pending)",
        "generation": f"{told.generation} of {told.updated:%Y-%m-%d %H:%M}" if told.updated else "none",
        "model": f"{told.model}, {told.dimension} numbers an image" if told.model else "none yet",
        "index": index,
    }
    return "\n".join(f"{name:11} {text}" for name, text in lines.items() if text)


def _show_index(told: CollectionStatus) -> str:
    parts = [told.index, f"recall {told.recall:.3f}"]
    if told.search:
        if (of_edits := told.search["recall_of_edits"]) is not None:
            parts.append(f"of edited copies {of_edits:.3f}")
        parts += [f"filtered to {one['share']:.1%} {one['recall']:.3f}" for one in told.search["filtered"]]
    return ", ".join(parts)


def show_unsearchable(files: list[UnsearchableFile], counts: dict[str, int]) -> str:
    """Files that cannot be searched, kind by kind: why, since when, and what to do."""
    return "\n".join(line for kind in counts for line in _show_kind(kind, counts[kind], files))


def _show_kind(kind: str, count: int, files: list[UnsearchableFile]) -> Iterator[str]:
    shown = [file for file in files if file.kind == kind]
    yield f"\n{kind}: {show_count(count, 'file')}"
    for file in shown:
        yield f"  {show_path(file.path)}"
        yield f"    {file.seen:%Y-%m-%d %H:%M}  {escape(file.reason)} {escape(file.advice)}"
    if count > len(shown):
        yield f"  ... and {count - len(shown):,} more: seer status --all"


def show_path(path: Path) -> str:
    """A path for a terminal: what is not UTF-8 or not printable is escaped."""
    return escape(os.fsencode(spell(path)).decode("utf-8", "backslashreplace"))


def escape(text: str) -> str:
    """A text for a terminal: nothing in it moves the cursor or changes a colour."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(ascii(letter)[1:-1] if unicodedata.category(letter)[0] == "C" else letter for letter in text)


def show_count(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def describe_status(told: CollectionStatus, files: list[UnsearchableFile]) -> dict:
    """A status as JSON-able values, with every file that cannot be searched."""
    return {
        "schema_version": 1,
        **asdict(told),
        "folder": escape_path(told.folder.absolute()),
        "folders": [escape_path(folder) for folder in told.folders],
        "updated": told.updated.isoformat() if told.updated else None,
        "failures": [_describe_unsearchable(file) for file in files if not file.is_pending],
        "pending_files": [_describe_unsearchable(file) for file in files if file.is_pending],
    }


def _describe_unsearchable(file: UnsearchableFile) -> dict:
    return {
        "path": escape_path(file.path),
        "kind": file.kind,
        "reason": file.reason,
        "what_to_do": file.advice,
        "when": file.seen.isoformat(),
    }


def describe_answer(folder: Path, answer: Answer, milliseconds: float) -> dict:
    """An answer as JSON-able values; a path that is not UTF-8 comes escaped, and whole in `path_bytes` (base64)."""
    return {
        "schema_version": 1,
        "collection": escape_path(folder.absolute()),
        "generation": answer.generation,
        "exact": answer.is_exact,
        "recall": answer.recall,
        **({"engine": answer.engine} if answer.engine else {}),
        "milliseconds": round(milliseconds, 3),
        "neighbours": [_describe_neighbour(neighbour) for neighbour in answer.neighbours],
    }


def describe_count(folder: Path, images: int, generation: str | None, milliseconds: float) -> dict:
    """How many images lie within bounds, which is always counted exactly, as JSON-able values."""
    exactly = Answer(neighbours=[], is_exact=True, recall=1.0, generation=generation)
    described = describe_answer(folder, exactly, milliseconds)
    del described["neighbours"]
    return described | {"images": images}


def _describe_neighbour(neighbour: Neighbour) -> dict:
    values = {
        "rank": neighbour.rank,
        "similarity": neighbour.similarity,
        "path": escape_path(neighbour.path),
        "paths": [escape_path(path) for path in neighbour.paths],
        "image_id": neighbour.image_id,
        "content_hash": neighbour.content_hash,
        "width": neighbour.width,
        "height": neighbour.height,
    }
    if values["path"] != str(neighbour.path):
        values["path_bytes"] = base64.b64encode(os.fsencode(neighbour.path)).decode("ascii")
    return values


def escape_path(path: Path) -> str:
    """A path for JSON: what is not UTF-8 is escaped."""
    return os.fsencode(spell(path)).decode("utf-8", "backslashreplace")
