"""From token bytes to text that may be shown: whole UTF-8 characters, stop strings held back until decided.

Pure. A token may end in the middle of a character or of a stop string; what could still become part of a stop string
waits. Bytes that are no UTF-8 become U+FFFD.
"""

from __future__ import annotations

import codecs


class Release:
    """Feed the bytes of each token, show what `feed` returns, end with `flush`.

    ``released`` counts the fed bytes whose text was shown, so that a caller can tell which tokens they belong to;
    ``stopped`` says that a stop string came (nothing is shown from its first character on).
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stops = [encoded for text in stop if (encoded := text.encode("utf-8"))]
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.released = 0
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return self._show(piece)
        data = self._held + piece
        places = [place for stop in self._stops if (place := data.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._held = b""
            return self._show(data[: min(places)]) + self._end()
        keep = max(_overlap(data, stop) for stop in self._stops)
        self._held = data[len(data) - keep :]
        return self._show(data[: len(data) - keep])

    def flush(self) -> str:
        """What was held back, once no more tokens come; an unfinished character becomes U+FFFD."""
        if self.stopped:
            return ""
        held, self._held = self._held, b""
        return self._show(held) + self._end()

    def _show(self, data: bytes) -> str:
        before = len(self._decoder.getstate()[0])
        text = self._decoder.decode(data)
        self.released += before + len(data) - len(self._decoder.getstate()[0])
        return text

    def _end(self) -> str:
        self.released += len(self._decoder.getstate()[0])
        return self._decoder.decode(b"", final=True)


def _overlap(data: bytes, stop: bytes) -> int:
    """Length of the longest end of ``data`` that is a beginning of ``stop``."""
    for length in range(min(len(data), len(stop) - 1), 0, -1):
        if stop.startswith(data[-length:]):
            return length
    return 0
