"""Filled polygons, against scikit-image's."""

import numpy as np
import pytest

from arl.ingest.contours import polygon_mask

# skimage.draw.polygon of scikit-image 0.26.0, '#' = its pixels, on a grid of 11 x 13
CASES = {
    "ventricle": ([6, 9, 10, 9, 7, 5, 3, 2, 3], [0, 2, 5, 8, 10, 10, 8, 5, 2]),
    "beyond the edge": ([-3, 15, 6], [4, -2, 14]),
    "crosses itself": ([1, 11, 11, 1], [1, 9, 1, 9]),
}
GOLDEN = {
    "ventricle": """
        ......#......
        .....###.....
        ...#######...
        ...#######...
        ...#######...
        ..#########..
        ...#######...
        ...#######...
        ...#######...
        ....#####....
        .....###.....
    """,
    "beyond the edge": """
        .........####
        ......#######
        ...##########
        #############
        ############.
        ############.
        ###########..
        ##########...
        .#########...
        ..#######....
        ...######....
    """,
    "crosses itself": """
        .............
        .#.........#.
        .##.......##.
        .###.....###.
        .####...####.
        .###########.
        .####...####.
        .###.....###.
        .##.......##.
        .#.........#.
        .............
    """,
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_scikit_image(name: str) -> None:
    columns, rows = (np.array(values) for values in CASES[name])
    mask = polygon_mask(columns, rows, 11, 13)
    assert ["".join("#" if pixel else "." for pixel in row) for row in mask] == GOLDEN[name].split()


def test_direction_and_first_vertex_do_not_matter() -> None:
    columns, rows = (np.array(values) for values in CASES["ventricle"])
    expected = polygon_mask(columns, rows, 11, 13)
    assert np.array_equal(polygon_mask(columns[::-1], rows[::-1], 11, 13), expected)
    assert np.array_equal(polygon_mask(np.roll(columns, 3), np.roll(rows, 3), 11, 13), expected)


def test_outside_of_the_picture_there_is_nothing() -> None:
    assert not polygon_mask(np.array([20, 30, 25]), np.array([20, 20, 30]), 11, 13).any()
