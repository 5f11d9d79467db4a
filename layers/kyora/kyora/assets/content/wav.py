"""WAV: RIFF (Microsoft, 1991), RIFX, and RF64 or BW64 for what is longer (EBU Tech 3306, BS.2088).

A program that writes into a pipe does not know the size: the sound then goes on to the end of the
file.
"""

import struct

from kyora.assets.content import tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
_UNKNOWN = (0, 0xFFFFFFFF)
_PCM = (1, 3, 6, 7, 0xFFFE)  # codings with a fixed number of bytes per sample


def check(source: Source, policy: Policy) -> Facts:
    """Walk the chunks to the sound. Its duration is its bytes over its rate."""
    head = source.at(0, 12)
    match(head[:4] in _ORDERS and head[8:] == b"WAVE")
    order = _ORDERS[head[:4]]
    position, rate, samples, coding, frequency, long_size = 12, 0, 0, 0, 0, None
    while True:
        source.step()
        name, length = struct.unpack(f"{order}4sL", source.exactly(position, 8))
        body = position + 8
        if name == b"ds64":
            (long_size,) = struct.unpack("<Q", source.exactly(body + 8, 8))
        elif name == b"fmt ":
            coding, channels, frequency, rate, block = struct.unpack(
                f"{order}HHLLH", source.exactly(body, 14)
            )
            whole(channels > 0 and frequency > 0)
            rate = rate or frequency * block
        elif name == b"fact" and length >= 4:
            (samples,) = struct.unpack(f"{order}L", source.exactly(body, 4))
        elif name == b"data":
            whole(frequency > 0)
            break
        position = body + length + length % 2
    if long_size is not None and length == 0xFFFFFFFF:
        length = long_size
    rest = source.size - body
    if length in _UNKNOWN or length > rest:
        length = rest
    riff_end = int.from_bytes(head[4:8], "big" if order == ">" else "little") + 8
    tail.check(source, max(body + length, min(riff_end, source.size)))
    if coding not in _PCM and samples:
        return Facts(duration_ms=round(1000 * samples / frequency))
    return Facts(duration_ms=round(1000 * length / rate) if rate else None)
