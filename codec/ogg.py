"""Ogg pages: what Vorbis and Opus files consist of (RFC 3533)."""

import zlib

SERIAL, CHECKSUM, NUM_SEGMENTS, SEGMENTS = 14, 22, 26, 27  # offsets in a page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_serial(data: bytes, serial: int) -> bytes:
    """Whole Ogg pages under another serial number, their checksums made anew.

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
    """CRC-32 of a page whose checksum field is zero.

    Ogg's polynomial is zlib's, but it takes every byte's highest bit first and inverts nothing:
    zlib's sum of the mirrored bytes, mirrored, without its inversions.
    """
    mirrored = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
