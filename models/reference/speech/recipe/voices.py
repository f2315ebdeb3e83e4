"""espeak-ng in process, through ctypes: every English accent and voice variant; some of both are held out by name."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
HELD_ACCENTS = ("en-gb-x-gbclan", "en-us-nyc")
HELD_VARIANTS = (
    "Andrea",
    "Denis",
    "Lee",
    "Mario",
    "belinda",
    "david",
    "edward2",
    "f3",
    "grandpa",
    "klatt3",
    "linda",
    "m4",
    "quincy",
    "steph2",
)
ABROAD = ("de", "fr", "es", "pl", "pt", "sv")  # speech of other languages that training hears; none of the grammar's
ABROAD_HELD = ("it", "nl")  # heard in examinations only

RATE, VOLUME, PITCH, RANGE, GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
SYNCHRONOUS, UTF8, END_PAUSE = 2, 1, 0x1000
ENDED, WORD = 0, 1  # espeak_EVENT_TYPE


class Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("position", ctypes.c_int),  # in the text, from 1
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("content", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


@dataclass(frozen=True)
class Voice:
    name: str  # as espeak-ng names it: accent, or accent+variant
    rate: int  # words a minute
    pitch: int  # 0..100
    range: int  # 0..100: how lively


class Espeak:
    """The library; one instance a process. Raises RuntimeError where libespeak-ng is missing."""

    def __init__(self) -> None:
        path = ctypes.util.find_library("espeak-ng")
        if not path:
            raise RuntimeError("libespeak-ng is not installed; apt-get install espeak-ng libespeak-ng1")
        self._lib = ctypes.CDLL(path)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self._rate = self._lib.espeak_Initialize(SYNCHRONOUS, 0, None, 0)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng does not start: are its data (espeak-ng-data) installed?")
        self._samples: list[np.ndarray] = []
        self.words: dict[int, float] = {}  # of what was said last: where a word begins in the text, and when (s)
        self._callback = Callback(self._collect)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[Event]) -> int:
        at = 0
        while events and events[at].type != ENDED:
            if events[at].type == WORD:
                self.words[events[at].position - 1] = events[at].milliseconds / 1000
            at += 1
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    @cached_property
    def variants(self) -> list[str]:
        """Names of the voice variants that are installed."""
        where = ctypes.c_char_p()
        self._lib.espeak_Info(ctypes.byref(where))
        folder = Path((where.value or b"").decode()) / "voices" / "!v"
        return sorted(path.name for path in folder.iterdir())

    def voice(self, rng: random.Random, *, held: bool = False, accents: tuple[str, ...] = ACCENTS) -> Voice:
        """A voice of training, or one with a held-out variant."""
        names = HELD_VARIANTS if held else [name for name in self.variants if name not in HELD_VARIANTS]
        accent = rng.choice(accents)
        name = f"{accent}+{rng.choice(names)}" if held or rng.random() < 0.93 else accent
        return Voice(name, rng.randint(115, 225), rng.randint(20, 80), rng.randint(25, 80))

    def phonemes(self, text: str) -> str:
        """espeak's own ASCII mnemonics in General American, without stress marks."""
        self._lib.espeak_SetVoiceByName(b"en-us")
        pointer = ctypes.c_char_p(text.encode())
        parts = []
        while pointer.value:
            parts.append(self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, 0) or b"")
        return " ".join(part.decode() for part in parts)

    def say(self, text: str, voice: Voice) -> tuple[np.ndarray, int]:
        """Samples (float32, -1..1) and their rate in Hz."""
        if self._lib.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name}")
        for parameter, value in ((RATE, voice.rate), (PITCH, voice.pitch), (RANGE, voice.range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._samples.clear()
        self.words.clear()
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
        self._lib.espeak_Synchronize()
        if not self._samples:
            return np.zeros(0, np.float32), self._rate
        return np.concatenate(self._samples).astype(np.float32) / 32768, self._rate
