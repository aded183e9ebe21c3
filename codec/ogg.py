"""Ogg pages: what Vorbis and Opus files consist of (RFC 3533)."""

import zlib

FLAGS, BEGINS, ENDS = 5, 2, 4
GRANULE, NUMBER = slice(6, 14), slice(18, 22)
SERIAL, CHECKSUM, NUM_SEGMENTS, SEGMENTS = 14, 22, 26, 27  # offsets in a page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def count_joined(data: bytes) -> int:
    """Count the streams that follow one another in a file (RFC 3533: chaining)."""
    count, inside, start = 0, True, 0
    while data[start : start + 4] == b"OggS" and start + SEGMENTS <= len(data):
        begins = bool(data[start + FLAGS] & BEGINS)
        count += begins and inside
        inside = not begins
        body = start + SEGMENTS + data[start + NUM_SEGMENTS]
        start = body + sum(data[start + SEGMENTS : body])
    return count


def on_two_pages(data: bytes) -> bytes:
    """Put the first packet of Vorbis audio that lies on one page on a page of its own.

    FFmpeg, and what is built on it, reads a file of one such page 128 samples short. The first
    packet gives no samples, so its page ends at sample 0. Checksums are left to ``with_serial``.
    """
    start, places = 0, []
    while start < len(data):
        places.append(start)
        body = start + SEGMENTS + data[start + NUM_SEGMENTS]
        start = body + sum(data[start + SEGMENTS : body])
    *_, before, last = places
    head, body = data[last : last + SEGMENTS], last + SEGMENTS + data[last + NUM_SEGMENTS]
    sizes = data[last + SEGMENTS : body]
    count = next(index for index, size in enumerate(sizes) if size < 255) + 1
    if any(data[before + 6 : before + 14]) or count == len(sizes):  # more pages, or one packet
        return data
    end = body + sum(sizes[:count])
    pages = []
    for flags, granule, number, part, content in (
        (0, bytes(8), 0, sizes[:count], data[body:end]),
        (ENDS, head[GRANULE], 1, sizes[count:], data[end:]),
    ):
        page = bytearray(head)
        page[FLAGS], page[NUM_SEGMENTS] = flags, len(part)
        page[GRANULE] = granule
        page[NUMBER] = (int.from_bytes(head[NUMBER], "little") + number).to_bytes(4, "little")
        pages.append(bytes(page) + part + content)
    return data[:last] + b"".join(pages)


def with_serial(data: bytes, serial: int) -> bytes:
    """Put whole Ogg pages under another serial number and renew their checksums.

    libsndfile draws serial numbers at random, so equal sound would give unequal files.

    Args:
        data: pages of one logical stream.
        serial: 0 to 2**32 - 1.
    """
    pages = bytearray(data)
    start = 0
    while start < len(pages):
        assert pages[start : start + 4] == b"OggS"
        body = start + SEGMENTS + pages[start + NUM_SEGMENTS]
        end = body + sum(pages[start + SEGMENTS : body])
        pages[start + SERIAL : start + SERIAL + 4] = serial.to_bytes(4, "little")
        pages[start + CHECKSUM : start + CHECKSUM + 4] = bytes(4)
        checksum = page_checksum(bytes(pages[start:end]))
        pages[start + CHECKSUM : start + CHECKSUM + 4] = checksum.to_bytes(4, "little")
        start = end
    return bytes(pages)


def page_checksum(page: bytes) -> int:
    """Compute the CRC-32 of a page whose checksum field is zero.

    Ogg's polynomial is zlib's, but it takes every byte's highest bit first and inverts nothing:
    zlib's sum of the mirrored bytes, mirrored, without its inversions.
    """
    mirrored = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
