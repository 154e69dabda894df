"""The filters between the telephone's 8 kHz and a provider's rates: what they pass, and how they delay."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from arivox.audio.format import ULAW
from arivox.audio.g711 import Pcm
from arivox.audio.resample import Resampler
from arivox.providers.transcoder import Transcoder
from bench.report import Limits, Result, Row
from bench.testbed import Plan, Testbed

_PASS_HZ: Final = np.arange(100.0, 3401.0, 50.0)
_STOP_FROM_HZ: Final = 4600.0  # from here on a sound would come back inside the telephone's band
_FRAMES: Final = 2000
_AMPLITUDE: Final = 30000.0
Samples = npt.NDArray[np.float64]
_WAYS: Final = ((8000, 16000), (24000, 8000), (16000, 8000), (8000, 24000))


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure with sines through the very objects that calls use."""
    del bed
    rows: list[Row] = []
    numbers: dict[str, Any] = {}
    for source, target in _WAYS:
        found = _filter(source, target)
        numbers[f"{source}-{target}"] = found
        way = f"{source // 1000} to {target // 1000} kHz"
        rows += [
            Row(f"{way}: loudest alias or image", found["alias_db"], "dB", Limits(-80.0, -84.0)),
            Row(
                f"{way}: passband 0.1-3.4 kHz, largest deviation", found["ripple_db"], "dB", Limits(0.5, 0.25)
            ),
            Row(
                f"{way}: delay at 0.1-3.4 kHz, longest",
                found["delay_ms"],
                "ms",
                Limits(1.5, 0.8),
                f"at 1 kHz {found['delay_1k_ms']:.2f}",
            ),
        ]
    linear = max(_rest(_linear(hz), hz, 16000) for hz in _PASS_HZ)
    numbers["linear_image_db"] = linear_db = round(float(20 * np.log10(linear)), 1)
    note = "what a caller sent at 8 kHz may become at a far end that resamples badly"
    rows.append(Row("8 to 16 kHz by linear interpolation: loudest image", linear_db, "dB", note=note))
    for up in (16000, 8000):
        cost = _cost(up, 200 if plan.quick else _FRAMES)
        numbers[f"cost_{up}"] = cost
        note = f"up {cost['up_us']:.1f}, down {cost['down_us']:.1f}; the caller at {up // 1000} kHz"
        rows.append(
            Row("20 ms of both ways, G.711 and filter", cost["up_us"] + cost["down_us"], "us", note=note)
        )
    return Result(rows, numbers)


def _filter(source: int, target: int) -> dict[str, float]:
    gains = [_level(_through(hz, source, target), hz, target) for hz in _PASS_HZ]
    ripple = max(abs(20 * np.log10(gain)) for gain in gains)
    if source > target:
        # What lies above half the lower rate must not come back below it.
        stop = np.arange(_STOP_FROM_HZ, source / 2 - 50, 50.0)
        alias = max(float(np.abs(_through(hz, source, target)).max()) for hz in stop) / _AMPLITUDE
    else:
        # Every image of a sound that is passed lies above half the lower rate.
        alias = max(_rest(_through(hz, source, target), hz, target) for hz in _PASS_HZ)
    return {
        "alias_db": round(float(20 * np.log10(max(alias, 1e-9))), 1),
        "ripple_db": round(float(ripple), 3),
        "delay_ms": round(max(Resampler(source, target).delay_ms(hz) for hz in _PASS_HZ), 3),
        "delay_1k_ms": round(Resampler(source, target).delay_ms(1000.0), 3),
    }


def _through(hz: float, source: int, target: int) -> Samples:
    """Return what comes out of a second of a sine, without its start and end, dithered before rounding."""
    t = np.arange(source) / source
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, source)
    pcm: Pcm = np.rint(_AMPLITUDE * np.sin(2 * np.pi * hz * t) + noise).astype(np.int16)
    resampler = Resampler(source, target)
    size = source // 50
    out = np.concatenate([resampler.process(pcm[start : start + size]) for start in range(0, source, size)])
    return _averaged(out[target // 10 : -target // 10].astype(np.float64), target)


def _linear(hz: float) -> Samples:
    """Return a second of a sine, interpolated linearly from 8 to 16 kHz."""
    t = np.arange(8000) / 8000
    sine = _AMPLITUDE * np.sin(2 * np.pi * hz * t)
    return _averaged(np.interp(np.arange(15999) / 2, np.arange(8000), sine), 16000)


def _averaged(out: Samples, rate: int) -> Samples:
    """Return the mean of all fifths of a second: tones at multiples of 50 Hz stay, rounding goes."""
    size = rate // 5
    mean: Samples = out[: len(out) // size * size].reshape(-1, size).mean(axis=0)
    return mean


def _level(out: Samples, hz: float, rate: int) -> float:
    t = np.arange(len(out)) / rate
    return float(2 * np.abs(np.mean(out * np.exp(-2j * np.pi * hz * t))) / _AMPLITUDE)


def _rest(out: Samples, hz: float, rate: int) -> float:
    """Return the loudest tone besides the one at ``hz``, as a share of it."""
    spectrum = np.abs(np.fft.rfft(out)) * 2 / len(out) / _AMPLITUDE
    places = np.fft.rfftfreq(len(out), 1 / rate)
    return float(spectrum[(np.abs(places - hz) > 40) & (places > rate / 8)].max())


def _cost(up: int, frames: int) -> dict[str, float]:
    transcoder = Transcoder(ULAW, up=up, down=24000)
    caller, agent = bytes(range(160)), bytes(960)
    began = time.perf_counter()
    for _ in range(frames):
        transcoder.to_provider(caller)
    middle = time.perf_counter()
    for _ in range(frames):
        transcoder.to_link(agent)
    ended = time.perf_counter()
    return {
        "up_us": round((middle - began) / frames * 1e6, 2),
        "down_us": round((ended - middle) / frames * 1e6, 2),
    }
