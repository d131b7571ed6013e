"""Damaged images and idx files: a DataError or a valid array comes out, in bounded time and memory.

Each kind of file runs in a process of its own, so that a crash, a hang or a runaway allocation
fails one test. TINYCONV_STRESS_CASES sets the number of files per kind (200).
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.idx import read_idx
from tinyconv.data.image import MAX_PIXELS, read_image
from tinyconv.errors import DataError

CASES = int(os.environ.get("TINYCONV_STRESS_CASES", "200"))
SECONDS_PER_FILE = 60  # what 89 megapixels may take on a busy machine; a hang takes longer
# The largest image allowed takes 256 MiB as RGB and 341 MiB as RGBA, and is held up to four times
# while transparency is laid on white and the array is made.
IMAGE_MEMORY = 2 * 2**30
IDX_MEMORY = 256 * 2**20


def _picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    noise = np.random.default_rng(0).integers(0, 40, (48, 64))
    channels = [4 * x % 256, 5 * y % 256, (x + y + noise) % 256]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def _encoded(mode: str, file_format: str, **options: object) -> bytes:
    picture = _picture()
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257)
    elif mode == "RGBA":
        picture.putalpha(picture.convert("L"))
    else:
        picture = picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif


def _idx() -> bytes:
    data = np.random.default_rng(0).integers(0, 256, 30 * 28 * 28, dtype=np.uint8)
    return b"\0\0\x08\x03" + struct.pack(">3I", 30, 28, 28) + data.tobytes()


ORIGINALS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _encoded("RGB", "JPEG", exif=_exif()),
    "jpeg-progressive": lambda: _encoded("RGB", "JPEG", progressive=True),
    "jpeg-cmyk": lambda: _encoded("CMYK", "JPEG"),
    "png": lambda: _encoded("RGB", "PNG", exif=_exif()),
    "png-palette": lambda: _encoded("P", "PNG", transparency=3),
    "png-16-bit": lambda: _encoded("I;16", "PNG"),
    "png-alpha": lambda: _encoded("RGBA", "PNG"),
    "png-with-valid-checksums": lambda: _encoded("RGBA", "PNG", exif=_exif()),
    "gif": lambda: _encoded("P", "GIF", transparency=3),
    "gif-animated": lambda: _encoded(
        "P", "GIF", save_all=True, append_images=[Image.new("P", (64, 48), n) for n in (1, 2)]
    ),
    "bmp": lambda: _encoded("RGB", "BMP"),
    "bmp-palette": lambda: _encoded("P", "BMP"),
    "webp": lambda: _encoded("RGB", "WEBP", exif=_exif()),
    "webp-lossless": lambda: _encoded("RGBA", "WEBP", lossless=True),
    "tiff": lambda: _encoded("RGB", "TIFF"),
    "tiff-lzw": lambda: _encoded("RGB", "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": lambda: _encoded("RGB", "TIFF", compression="jpeg"),
    "tiff-16-bit": lambda: _encoded("I;16", "TIFF"),
    "ppm": lambda: _encoded("RGB", "PPM"),
    "pgm": lambda: _encoded("L", "PPM"),
    "ppm-plain": lambda: b"P3 16 12 255\n" + b" ".join(b"%d" % (n % 256) for n in range(576)),
    "idx": _idx,
    "idx-gzip": lambda: gzip.compress(_idx(), mtime=0),
    "idx-inside-gzip": _idx,
}


def _with_valid_checksums(png: bytes) -> bytes:
    """A damaged PNG whose chunks pass their check, so that the decoder gets to see the damage."""
    repaired, at = bytearray(png), 8
    while at + 12 <= len(repaired):
        end = at + 8 + int.from_bytes(repaired[at : at + 4], "big")
        repaired[end : end + 4] = struct.pack(">I", zlib.crc32(repaired[at + 4 : end]))
        at = end + 4
    return bytes(repaired)


# What is done to a file after the damage, to bring the damage past the first check.
REPAIRS: dict[str, Callable[[bytes], bytes]] = {
    "png-with-valid-checksums": _with_valid_checksums,
    "idx-inside-gzip": lambda data: gzip.compress(data, 1),
}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with one to three random faults."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(0, max(len(changed), 1)))
        match rng.integers(0, 7):
            case 0:  # bytes flipped anywhere
                for at in rng.integers(0, max(len(changed), 1), rng.integers(1, 17)):
                    changed[at : at + 1] = rng.bytes(1)
            case 1:  # a byte of the header at an extreme
                at = int(rng.integers(0, 64))
                changed[at : at + 1] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])])
            case 2:  # a number at an extreme
                number = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]))
                at = place if rng.random() < 0.5 else int(rng.integers(0, 64))
                width = int(rng.choice([2, 4]))
                order = "big" if rng.random() < 0.5 else "little"
                changed[at : at + width] = (number % 256**width).to_bytes(width, order)
            case 3:  # cut off
                del changed[place:]
            case 4:  # bytes inserted
                changed[place:place] = rng.bytes(int(rng.integers(1, 65)))
            case 5:  # bytes lost
                del changed[place : place + int(rng.integers(1, 65))]
            case 6:  # a stretch repeated elsewhere
                stretch = changed[place : place + int(rng.integers(1, 257))]
                at = int(rng.integers(0, len(changed) + 1))
                changed[at:at] = stretch
    return bytes(changed)


def run(kind: str, cases: int, folder: Path) -> dict[str, object]:
    """Read `cases` damaged files of a kind: how many were refused and read, what went wrong."""
    original = ORIGINALS[kind]()
    refused, wrong, slowest = 0, [], 0.0
    for case in range(cases):
        rng = np.random.default_rng([sum(kind.encode()), case])
        data = mutate(original, rng)
        path = folder / "damaged"
        path.write_bytes(REPAIRS.get(kind, bytes)(data))
        faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
        started = time.perf_counter()
        try:
            if kind.startswith("idx"):
                array = read_idx(path)
                if array.nbytes > 10 * len(data):
                    wrong.append(f"case {case}: {array.nbytes} bytes out of {len(data)}")
            else:
                image = read_image(path, None if case % 2 else 32)
                shape = image.shape if case % 2 else (32, 32, 3)
                if image.dtype != np.uint8 or image.shape != shape or image.shape[2] != 3:
                    wrong.append(f"case {case}: {image.dtype} {image.shape}")
                if image.size > 3 * MAX_PIXELS:
                    wrong.append(f"case {case}: {image.shape} is too large")
        except DataError as error:
            refused += 1
            if not str(error).startswith(f"{path}: ") or str(error).endswith(": "):
                wrong.append(f"case {case}: message {error}")
        except BaseException as error:
            wrong.append(f"case {case}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.perf_counter() - started)
    faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count what the parent held when it forked
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"refused": refused, "wrong": wrong, "slowest": slowest, "peak": peak}


@pytest.mark.parametrize("kind", ORIGINALS)
def test_damaged_files_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", __file__, kind, str(CASES), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-5000:]
    # libtiff writes its own lines about what it refuses; nothing else may write any.
    assert process.stderr == "" or (kind.startswith("tiff") and "Error" not in process.stderr)
    result = json.loads(process.stdout)
    assert result["wrong"] == []
    assert result["refused"] > 0.05 * CASES  # the faults do reach the readers
    assert result["peak"] < (IDX_MEMORY if kind.startswith("idx") else IMAGE_MEMORY)


if __name__ == "__main__":
    warnings.simplefilter("error")
    outcome = run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.write(json.dumps(outcome))
