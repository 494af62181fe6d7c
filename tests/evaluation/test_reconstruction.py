import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from arl.evaluation.reconstruction import masks, seen, speckle
from arl.evaluation.speckle import local_snr, spectrum_distance


def images(count: int = 11) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 60 * np.hypot(rng.normal(size=(count, 40, 40)), rng.normal(size=(count, 40, 40)))


def test_a_blurred_picture_has_lost_the_speckle() -> None:
    truth = images()
    blurred = np.stack([gaussian_filter(image, 1.0) for image in truth])
    found = speckle(blurred, truth, np.arange(11), seed=0)
    parts = list(zip(blurred, truth, strict=True))
    assert found.spectrum.value == pytest.approx(
        np.mean([spectrum_distance(b, t, 16) for b, t in parts])
    )
    assert found.snr.value == pytest.approx(
        np.mean([local_snr(b) - local_snr(t) for b, t in parts])
    )
    assert found.snr.low > 0
    assert found.error.value == pytest.approx(
        np.mean([np.sqrt(np.mean((b - t) ** 2)) for b, t in parts])
    )
    same = speckle(truth, truth, np.arange(11), seed=0)
    assert same.error.value == same.spectrum.value == same.snr.value == 0


def test_every_method_gets_the_same_masks_and_sees_the_rest() -> None:
    first, again = masks(3, 16, 0.75, seed=5), masks(3, 16, 0.75, seed=5)
    assert torch.equal(first.mask, again.mask)
    assert first.mask.sum() == 3 * 12
    shown = seen(np.ones((3, 8, 8)), first, patch=2)
    assert shown.sum() == 3 * 4 * 4
    one = np.argwhere(~first.mask[1].numpy())[0, 0]
    row, column = divmod(int(one), 4)
    assert shown[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].all()
