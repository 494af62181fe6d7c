"""Near-identical frames of one clip, of which a few are enough to learn from.

The frames of a cine differ by a few bits of their perceptual hash, so that a threshold that finds
duplicates among
stills would collapse clips: thinning is per source, by parameters, within one clip only, and
counted.
"""

from dataclasses import dataclass

import numpy as np

from arl.corpus.pixels import perceptual_hash
from arl.corpus.record import Entry, Record


@dataclass(frozen=True)
class Thinning:
    """Which frames of a clip are kept; the default keeps all of them."""

    every: int = 1  # frames from one that is kept to the next, counted from the clip's first
    distance: int = (
        0  # bits, of 64, in which a frame differs at least from the last one kept before it
    )
    most: int = (
        0  # frames of a clip, evenly spaced among those that the other rules leave; 0: no limit
    )

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.distance <= 64 or self.most < 0:
            raise ValueError(
                f"{self}: every must be 1 or more, distance 0 to 64, most 0 (no limit) or more"
            )


WHOLE = Thinning()


def is_fixed(entry: Entry) -> bool:
    """Stills, masked and official frames are never thinned."""
    return entry.clip is None or entry.official or entry.mask_name is not None


class Thinner:
    """Decides frame by frame, in the order of their input; of every clip at least one stays."""

    def __init__(self, thinning: Thinning) -> None:
        self._thinning = thinning
        self._first: dict[str | None, int] = {}  # clip -> number of its first frame
        self._last: dict[
            tuple[str | None, tuple[int, ...]], int
        ] = {}  # clip and shape (a region) -> hash

    def keeps(self, record: Record) -> bool:
        """Whether a frame stays by `every` and `distance`."""
        rule, entry = self._thinning, record.entry
        if (
            not is_fixed(entry)
            and (entry.frame - self._first.setdefault(entry.clip, entry.frame)) % rule.every
        ):
            return False
        if rule.distance == 0 or entry.clip is None:
            return True
        place, code = (entry.clip, record.image.shape[:2]), perceptual_hash(record.image)
        last = self._last.get(place)
        if not is_fixed(entry) and last is not None and (code ^ last).bit_count() < rule.distance:
            return False
        self._last[place] = code
        return True

    def chosen(self, entries: list[Entry]) -> list[int]:
        """Positions that stay by `most`, of frames that `keeps` has kept."""
        if self._thinning.most == 0:
            return list(range(len(entries)))
        chosen = {position for position, entry in enumerate(entries) if is_fixed(entry)}
        clips: dict[str, list[int]] = {}
        for position, entry in enumerate(entries):
            if entry.clip is not None:
                clips.setdefault(entry.clip, []).append(position)
        for members in clips.values():
            free = [position for position in members if position not in chosen]
            room = max(0, self._thinning.most - (len(members) - len(free)))
            chosen |= {
                free[int(place)]
                for place in np.linspace(0, len(free) - 1, min(room, len(free))).round()
            }
        return sorted(chosen)
