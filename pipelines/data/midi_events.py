"""Rewrite the events of a MIDI file: escapes, which symusic takes for notes, become texts."""

SYSTEM_EXCLUSIVE, ESCAPE, META = 0xF0, 0xF7, 0xFF
TEXT = b"\xff\x01"
DATA_BYTES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}


def escapes_as_texts(data: bytes) -> bytes:
    """Turn the escapes (F7 events) of a Standard MIDI File into text events.

    symusic reads the bytes in an escape as events (findings/midi-escape-events.sh): notes vanish,
    or the file is refused. A file without escapes, or one that ends too early, stays as it is.
    """
    if b"\xf7" not in data:
        return data
    out, place = bytearray(data[:14]), 14
    try:
        while place + 8 <= len(data):
            name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "big")
            chunk = data[place + 8 : place + 8 + size]
            body = without_escapes(chunk) if name == b"MTrk" else chunk
            out += name + len(body).to_bytes(4, "big") + body
            place += 8 + size
    except IndexError:  # damaged: symusic says how
        return data
    return bytes(out + data[place:])


def without_escapes(track: bytes) -> bytes:
    """Turn the escapes in the events of one track into text events."""
    out, place, running = bytearray(), 0, 0
    while place < len(track):
        start = place
        _, place = read_number(track, place)  # ticks since the event before
        out += track[start:place]
        start = place
        status = track[place] if track[place] >= 0x80 else running
        place += track[place] >= 0x80
        if status in (SYSTEM_EXCLUSIVE, ESCAPE, META):
            place += status == META
            number_at = place
            size, place = read_number(track, place)
            place += size
            out += TEXT + track[number_at:place] if status == ESCAPE else track[start:place]
            running = 0
        else:
            place += DATA_BYTES.get(status & 0xF0, 1)
            out += track[start:place]
            running = status
    return bytes(out)


def read_number(data: bytes, place: int) -> tuple[int, int]:
    """Read a number of variable length, seven bits a byte; return it and the place after it."""
    value = 0
    while data[place] & 0x80:
        value = (value | data[place] & 0x7F) << 7
        place += 1
    return value | data[place], place + 1
