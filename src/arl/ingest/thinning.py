"""Selection of a few frames among the near-identical frames of a clip.

The frames of a cine differ by a few bits of their perceptual hash. The threshold that finds
duplicate stills would therefore remove whole clips. Thinning is set per source by parameters, works
within one clip, and is counted.
"""

import numpy as np

from arl.corpus.pixels import perceptual_hash
from arl.corpus.record import Entry, Record
from arl.settings import Thinning

WHOLE = Thinning()


def is_fixed(entry: Entry) -> bool:
    """Whether a frame is always kept: a still, or a masked or official frame."""
    return entry.clip is None or entry.official or entry.mask_name is not None


class Thinner:
    """Applies the rules frame by frame, in input order; at least one frame of each clip stays."""

    def __init__(self, thinning: Thinning) -> None:
        self._thinning = thinning
        # Clip -> number of its first frame.
        self._first: dict[str | None, int] = {}
        # (clip, shape) -> hash of the last frame kept; regions of a frame differ in shape
        self._last: dict[tuple[str | None, tuple[int, ...]], int] = {}

    def keeps(self, record: Record) -> bool:
        """Whether to keep a frame by the rules `every` and `distance`."""
        rule, entry = self._thinning, record.entry
        if (
            not is_fixed(entry)
            and (entry.frame - self._first.setdefault(entry.clip, entry.frame)) % rule.every
        ):
            return False
        if rule.distance == 0 or entry.clip is None:
            return True
        view, code = (entry.clip, record.image.shape[:2]), perceptual_hash(record.image)
        last = self._last.get(view)
        if not is_fixed(entry) and last is not None and (code ^ last).bit_count() < rule.distance:
            return False
        self._last[view] = code
        return True

    def chosen(self, entries: list[Entry]) -> list[int]:
        """Positions that stay by `max_frames`, of frames that `keeps` has kept."""
        if self._thinning.max_frames == 0:
            return list(range(len(entries)))
        chosen = {position for position, entry in enumerate(entries) if is_fixed(entry)}
        clips: dict[str, list[int]] = {}
        for position, entry in enumerate(entries):
            if entry.clip is not None:
                clips.setdefault(entry.clip, []).append(position)
        for members in clips.values():
            free = [position for position in members if position not in chosen]
            room = max(0, self._thinning.max_frames - (len(members) - len(free)))
            chosen |= {
                free[int(position_)]
                for position_ in np.linspace(0, len(free) - 1, min(room, len(free))).round()
            }
        return sorted(chosen)
