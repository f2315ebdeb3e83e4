"""What rooms, microphones and lines do to speech: all on samples at 16 kHz, drawn from a seeded generator."""

from __future__ import annotations

import numpy as np

RATE = 16000
Random = np.random.Generator


def resample(samples: np.ndarray, rate: float, to: int = RATE) -> np.ndarray:
    """Band-limited, by cutting or padding the spectrum."""
    count = round(len(samples) * to / rate)
    if count == len(samples) or not len(samples):
        return samples
    spectrum = np.fft.rfft(samples)
    out = np.zeros(count // 2 + 1, spectrum.dtype)
    both = min(len(out), len(spectrum))
    out[:both] = spectrum[:both]
    return (np.fft.irfft(out, count) * (count / len(samples))).astype(np.float32)


def shape(samples: np.ndarray, gain: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Multiplies the spectrum by `gain` (linear) given at frequencies `at` (Hz)."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.linspace(0, RATE / 2, len(spectrum))
    return np.fft.irfft(spectrum * np.interp(frequencies, at, gain), len(samples)).astype(np.float32)


def noise(rng: Random, count: int) -> np.ndarray:
    """White to brown noise, hum, or wandering noise; RMS 1."""
    colour = rng.uniform(0, 2)
    frequencies = np.maximum(np.linspace(0, RATE / 2, count // 2 + 1), 40)
    spectrum = rng.standard_normal(len(frequencies)) + 1j * rng.standard_normal(len(frequencies))
    out = np.fft.irfft(spectrum * frequencies ** (-colour / 2), count)
    if rng.random() < 0.2:  # mains hum with its harmonics
        time = np.arange(count) / RATE
        base = rng.choice((50, 60, 100, 120))
        out /= out.std() + 1e-9
        out += sum(rng.uniform(0, 1.5) * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) for k in range(1, 6))
    if rng.random() < 0.3:  # comes and goes
        knots = rng.uniform(0.1, 1, max(2, count // 4000))
        out *= np.interp(np.arange(count), np.linspace(0, count, len(knots)), knots)
    if rng.random() < 0.15:  # knocks
        for _ in range(rng.integers(1, 6)):
            at, size = rng.integers(0, count), int(rng.integers(50, 1500))
            burst = rng.standard_normal(size) * np.exp(-np.arange(size) / (size / 5)) * out.std() * rng.uniform(3, 15)
            out[at : at + size] += burst[: max(0, count - at)]
    return (out / (out.std() + 1e-9)).astype(np.float32)


def reverberation(rng: Random, samples: np.ndarray) -> np.ndarray:
    """A room of decaying noise, 0.1 to 0.9 s to -60 dB."""
    decay = rng.uniform(0.1, 0.9)
    size = int(decay * RATE)
    tail = rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    tail[: int(rng.uniform(0.001, 0.01) * RATE)] = 0
    tail *= rng.uniform(0.15, 0.9) / np.sqrt((tail**2).sum() + 1e-9)
    tail[0] = 1
    count = len(samples) + size
    wet = np.fft.irfft(np.fft.rfft(samples, count) * np.fft.rfft(tail, count), count)
    return wet[: len(samples) + size // 3].astype(np.float32)


def line(rng: Random, samples: np.ndarray) -> np.ndarray:
    """A microphone's and a line's colour: band limits, a crooked response, a coarse codec."""
    at = np.array([0, 60, 120, 250, 500, 1000, 2000, 3000, 4000, 5500, 7000, 8000], float)
    gain = 10 ** (rng.normal(0, rng.uniform(0, 5), len(at)) / 20)
    if rng.random() < 0.35:
        gain[at < rng.uniform(50, 350)] *= 0.03
    if rng.random() < 0.35:
        gain[at > rng.uniform(3200, 7500)] *= 0.01
    out = shape(samples, gain, at)
    if rng.random() < 0.12:  # telephone: 8 kHz, mu-law
        out = shape(out, np.array([0, 1, 1, 0, 0]), np.array([150, 300, 3300, 3700, 8000], float))
        peak = np.abs(out).max() + 1e-9
        small = np.sign(out) * np.log1p(255 * np.abs(out) / peak) / np.log(256)
        small = np.round(small * 127) / 127
        out = (np.sign(small) * np.expm1(np.abs(small) * np.log(256)) / 255 * peak).astype(np.float32)
    if rng.random() < 0.08:  # overdriven
        limit = np.abs(out).max() * rng.uniform(0.3, 0.8)
        out = np.clip(out, -limit, limit)
    return out


def place(rng: Random, samples: np.ndarray, *, longest: float) -> tuple[np.ndarray, float]:
    """Silence before and after, as far as `longest` (seconds) allows; when the speech begins."""
    room = max(0.0, longest - len(samples) / RATE)
    before = min(room / 2, rng.choice((0.0, rng.uniform(0, 0.3), rng.uniform(0, 0.9))))
    after = min(room / 2, rng.choice((0.0, rng.uniform(0, 0.5), rng.uniform(0, 1.0))))
    return np.pad(samples, (int(before * RATE), int(after * RATE))), before


def disturb(rng: Random, samples: np.ndarray, babble: np.ndarray | None = None) -> np.ndarray:
    """Room, line, noise (-2 to 40 dB, a fifth without) and gain, as 16-bit samples would keep them."""
    out = samples
    if rng.random() < 0.4:
        out = reverberation(rng, out)[: len(samples)]
    if rng.random() < 0.7:
        out = line(rng, out)
    level = float(np.sqrt((out**2).mean())) + 1e-6
    if rng.random() < 0.8:
        ratio = rng.triangular(-2, 22, 42)
        back = noise(rng, len(out))
        if babble is not None and len(babble) and rng.random() < 0.25:
            back = np.resize(np.roll(babble, rng.integers(0, len(babble))), len(out))
            back = back / (back.std() + 1e-9)
            ratio += 6
        out = out + back * level * 10 ** (-ratio / 20)
    out = out / (np.abs(out).max() + 1e-9) * 10 ** rng.uniform(-1.7, -0.02)
    return (np.round(out * 32767) / 32768).astype(np.float32)
