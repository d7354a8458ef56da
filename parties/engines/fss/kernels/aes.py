"""AES (FIPS 197) as tables and key schedules, for the kernels that compute it themselves."""

from functools import cache

import numpy as np
from numpy.typing import NDArray


def column_table() -> NDArray[np.int32]:
    """Tabulates the column (2 s, s, s, 3 s) of each byte's S-box value s, little-endian (FIPS 197, section 5)."""
    box = _box().astype(np.uint32)
    double = ((box << 1) ^ np.where(box & 128, np.uint32(0x11B), np.uint32(0))) & 0xFF
    return (double | box << 8 | box << 16 | (double ^ box) << 24).astype(np.uint32).view(np.int32)


def round_keys(key: bytes) -> NDArray[np.int32]:
    """Returns the words of the key schedule, little-endian (FIPS 197, section 5.2): 44 of AES-128, 60 of AES-256.

    Args:
        key: 16 or 32 bytes.
    """
    box, words, constant = _box(), [list(key[i : i + 4]) for i in range(0, len(key), 4)], 1
    given = len(words)
    while len(words) < 4 * (given + 7):
        word, place = words[-1], len(words) % given
        if place == 0:
            word = [int(box[byte]) for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = constant << 1 ^ (0x11B if constant & 128 else 0)
        elif given > 6 and place == 4:
            word = [int(box[byte]) for byte in word]
        words.append([a ^ b for a, b in zip(words[-given], word, strict=True)])
    return np.array(words, dtype=np.uint8).reshape(-1).view(np.int32)


@cache
def _box() -> NDArray[np.uint8]:
    """Returns the S-box: the inverse in GF(2^8), then an affine map (FIPS 197, section 5.1.1)."""
    power, exponents, logarithms = 1, [], {}
    for exponent in range(255):
        exponents.append(power)
        logarithms[power] = exponent
        power ^= power << 1 ^ (0x11B if power & 128 else 0)  # times 3, a generator
    box = []
    for byte in range(256):
        inverse = exponents[-logarithms[byte] % 255] if byte else 0
        turned = inverse
        for shift in range(1, 5):
            turned ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box.append(turned ^ 0x63)
    return np.array(box, dtype=np.uint8)
