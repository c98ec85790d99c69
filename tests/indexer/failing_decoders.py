"""What decoding processes do in tests: as the real ones, and at some bytes or names hang, die, or want too much memory.

Rule: little is imported here. A process imports this module with its first picture, in the time that picture may take.
"""

import os
import signal
import time

from indexer import decode
from indexer.aside import prepare_picture
from indexer.decode import DecodedFile, DecodeSettings, DecodeTask, decode_file

POISON, SLOW, SWELLING = b"poison", b"slow", b"swelling"


def prepare_or_die(data: bytes, how: object, max_megapixels: float, region: object = None) -> object:
    """As `prepare_picture`; some bytes end the process, hang it, or want more memory than a picture may."""
    if data == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == SLOW:
        hang()
    if data == SWELLING:
        bytearray(1 << 30)
    return prepare_picture(data, how, max_megapixels, region)


def hang() -> None:
    """Never come back, and listen to nobody."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)


def hang_at_poison(task: DecodeTask, settings: DecodeSettings) -> DecodedFile:
    """As `decode_file`; a file of this name hangs its decoder."""
    if "poison" in task.path:
        hang()
    return decode_file(task, settings)


def die_at_poison(task: DecodeTask, settings: DecodeSettings) -> DecodedFile:
    """As `decode_file`; the kernel ends the process for a file of this name."""
    if "poison" in task.path:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_file(task, settings)


def want_too_much(task: DecodeTask, settings: DecodeSettings) -> DecodedFile:
    """As `decode_file`; a decoder believes what a header of a file of this name says."""
    if "poison" in task.path:
        decode.open_picture = lambda *_, **__: bytearray(4 << 30)
    return decode_file(task, settings)
