"""G.711 mu-law and A-law by tables, bit-exact with ITU-T G.711 (as computed by ITU-T G.191).

One byte is one sample at 8 kHz. The tables are built once from the arithmetic of the recommendation.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Law = Literal["ulaw", "alaw"]
Pcm = npt.NDArray[np.int16]
Samples = npt.NDArray[np.float32]

ULAW_SILENCE: Final = 0xFF
ALAW_SILENCE: Final = 0xD5


def _ulaw_decode_table() -> Pcm:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 132) << ((code >> 4) & 7)
    return np.where(code & 0x80, 132 - magnitude, magnitude - 132).astype(np.int16)


def _alaw_decode_table() -> Pcm:
    code = np.arange(256) ^ 0x55
    exponent = (code >> 4) & 7
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent > 0, (mantissa + 256) << np.maximum(exponent - 1, 0), mantissa)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _ulaw_encode_table() -> npt.NDArray[np.uint8]:
    # Indexed by the sample viewed as unsigned 16 bit. G.191 works on 14-bit magnitudes, negatives by
    # one's complement, so that -1..-4 become negative zero rather than the next code.
    pcm = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.where(pcm < 0, ~pcm >> 2, pcm >> 2) + 33, 0x1FFF)
    segment = np.floor(np.log2(magnitude)).astype(np.int32) - 5
    mantissa = (magnitude >> (segment + 1)) & 0x0F
    code = ~((segment << 4) | mantissa) & 0x7F
    signed: npt.NDArray[np.int32] = np.where(pcm >= 0, code | 0x80, code)
    return signed.astype(np.uint8)


def _alaw_encode_table() -> npt.NDArray[np.uint8]:
    pcm = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(pcm < 0, ~pcm >> 4, pcm >> 4)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 3, 1)
    segmented = ((magnitude >> (exponent - 1)) & 0x0F) + (exponent << 4)
    code = np.where(magnitude > 15, segmented, magnitude)
    signed: npt.NDArray[np.int32] = np.where(pcm >= 0, code | 0x80, code)
    return (signed ^ 0x55).astype(np.uint8)


DECODE: Final[dict[Law, Pcm]] = {"ulaw": _ulaw_decode_table(), "alaw": _alaw_decode_table()}
ENCODE: Final[dict[Law, npt.NDArray[np.uint8]]] = {"ulaw": _ulaw_encode_table(), "alaw": _alaw_encode_table()}
DECODE_FLOAT: Final[dict[Law, Samples]] = {law: table.astype(np.float32) for law, table in DECODE.items()}
# The codes of -32768, -32767 and so on: an index off either end is cut to it, as a peak should be.
_CODES: Final = {law: np.roll(table, 32768) for law, table in ENCODE.items()}
_FIRST_CODE: Final = np.float32(32768.5)  # the place of 0, and half a step to round by
SILENCE: Final[dict[Law, bytes]] = {"ulaw": bytes([ULAW_SILENCE]), "alaw": bytes([ALAW_SILENCE])}


def decode(data: bytes | bytearray | memoryview, law: Law) -> Pcm:
    """Return the samples of G.711 ``data``: shape (n,), int16, 8 kHz."""
    return DECODE[law].take(np.frombuffer(data, np.uint8))


def encode(pcm: Pcm, law: Law) -> bytes:
    """Return G.711 bytes, one for each int16 sample of ``pcm``."""
    return ENCODE[law].take(pcm.view(np.uint16)).tobytes()


def encode_samples(samples: Samples, law: Law) -> bytes:
    """Return G.711 bytes, one for each of ``samples``, rounded to int16, peaks cut off. They are changed."""
    np.add(samples, _FIRST_CODE, out=samples)
    return _CODES[law].take(samples.astype(np.intp), mode="clip").tobytes()


def codes_up_to(level: float, law: Law) -> bytes:
    """Return the codes of all samples that are no louder than ``level`` (of 32768)."""
    return bytes(np.flatnonzero(np.abs(DECODE_FLOAT[law]) <= level).astype(np.uint8))


def attenuation(law: Law, factor: float) -> bytes:
    """Return the 256-byte table that scales G.711 bytes by ``factor`` through ``bytes.translate``."""
    scaled = np.rint(DECODE[law].astype(np.float64) * factor).astype(np.int16)
    return encode(scaled, law)
