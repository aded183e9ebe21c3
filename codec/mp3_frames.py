"""MP3 frames: how much sound a file holds, whatever its header says (ISO 11172-3, 13818-3)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

BITRATES_KBPS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
)
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By the version's two bits: MPEG 1, 2 and 2.5."""
SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
"""Begin of a layer-III header."""
BIG_ENOUGH = (5, 8)
"""Indices of 64 kbps: a frame that holds a table of contents."""
SLACK_FRAMES = 4
"""Frames by which encoders' padding and a header may differ."""


@dataclass(frozen=True)
class Mp3Frame:
    """One frame: where it is, and how many samples it stands for."""

    start: int
    length: int
    samples: int
    is_table: bool


def read_frame(data: bytes, start: int) -> Mp3Frame | None:
    """Read the header of a layer-III frame, None where there is none."""
    header = data[start : start + 4]
    if len(header) < 4 or not SYNC.match(header):
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if bitrate in (0, 15) or rate == 3:  # free and forbidden
        return None
    is_first = version == 3
    samples = 1152 if is_first else 576
    kbps = BITRATES_KBPS[0 if is_first else 1][bitrate]
    length = samples // 8 * kbps * 1000 // SAMPLE_RATES[version][rate] + (header[2] >> 1 & 1)
    place = start + 4 + side_bytes(header)
    is_table = data[place : place + 4] in (b"Xing", b"Info")
    return Mp3Frame(start, length, samples, is_table or data[start + 36 : start + 40] == b"VBRI")


def side_bytes(header: bytes) -> int:
    """Count the bytes of side information, after which a table of contents begins."""
    is_mono = header[3] >> 6 == 3
    if header[1] >> 3 & 3 == 3:
        return 17 if is_mono else 32
    return 9 if is_mono else 17


def read_frames(data: bytes) -> Iterator[Mp3Frame]:
    """Yield all frames of a file, of several joined ones too; tags between them are passed over."""
    position = 0
    while position < len(data):
        if data[position : position + 3] == b"ID3":
            size = 0
            for byte in data[position + 6 : position + 10]:
                size = size << 7 | byte & 127
            position += 10 + size
            continue
        frame = read_frame(data, position)
        follows = None if frame is None else position + frame.length
        if (
            frame is not None
            and follows is not None
            and follows <= len(data)
            and (
                follows + 4 > len(data)
                or data[follows : follows + 3] in (b"ID3", b"TAG", b"APE")
                or read_frame(data, follows)
            )
        ):
            yield frame
            position = follows
            continue
        found = SYNC.search(data, position + 1)
        position = found.start() if found else len(data)


def with_true_length(data: bytes, promised: int) -> tuple[bytes, int] | None:
    """Put a table in front that gives an MP3 file's true length, where its own is wrong or missing.

    Args:
        data: the file.
        promised: samples that a decoder takes it to hold.

    Returns:
        The file with a table of its own, and the samples that it holds; None where the promise is
        kept, or where less is there than a table promises (it was cut short).
    """
    frames = list(read_frames(data))
    sounding = [frame for frame in frames if not frame.is_table]
    if not sounding:
        return None
    held = sum(frame.samples for frame in sounding)
    slack = SLACK_FRAMES * sounding[0].samples
    if abs(held - promised) <= slack or (held < promised and len(sounding) < len(frames)):
        return None
    header = bytearray(data[sounding[0].start : sounding[0].start + 4])
    header[1] |= 1  # no checksum
    header[2] = header[2] & 0b1101 | BIG_ENOUGH[0 if header[1] >> 3 & 3 == 3 else 1] << 4
    table = bytes(header) + bytes(side_bytes(bytes(header))) + b"Xing" + (1).to_bytes(4, "big")
    table += len(sounding).to_bytes(4, "big")
    first = read_frame(table, 0)
    assert first is not None
    body = b"".join(data[frame.start : frame.start + frame.length] for frame in sounding)
    return table.ljust(first.length, b"\0") + body, held
