"""How code and documentation read: `scripts/house.py` measures, this file holds the limits."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = runpy.run_path(str(ROOT / "scripts" / "house.py"))


@pytest.fixture(scope="module")
def house():
    return HOUSE["measure"](ROOT)


def test_identifiers_are_words_of_the_field() -> None:
    assert HOUSE["banned_identifiers"](ROOT) == []


def test_no_line_is_too_wide() -> None:
    assert HOUSE["wide_lines"](ROOT) == []


def test_only_reports_writes_pages() -> None:
    assert HOUSE["page_code"](ROOT) == []


def test_results_have_types(house) -> None:
    assert house.dict_str_any_in_src <= 20


def test_functions_are_short_and_few_are_private(house) -> None:
    assert house.private_functions_per_1000_lines <= 25
    assert house.function_lines_p90 <= 25


def test_comments_say_why(house) -> None:
    assert house.comment_lines_percent_of_code >= 3


def test_dvc_yaml_names_folders(house) -> None:
    assert house.dvc_yaml_lines <= 170


def test_documentation_is_short_and_plain(house) -> None:
    assert house.readme_lines <= 150
    assert house.readme_median_words_a_sentence <= 15
    assert house.docs_median_words_a_sentence <= 15


def test_the_measures_see_what_they_count(tmp_path: Path) -> None:
    """Each limit could be kept by a measure that counts nothing."""
    for folder in ("src/arl/reports", "components", "pipelines", "tests", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "src/arl/odd.py").write_text(
        "def _one(told: dict[str, Any]) -> str:\n    # why\n    found = told\n"
        f"    return '<table >' + {'x' * 100!r} + html.table(found)\n"
    )
    (tmp_path / "src/arl/reports/page.py").write_text("page = '<table >'\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n")
    (tmp_path / "README.md").write_text("# A\n\nOne two three four. Five six seven.\n")
    (tmp_path / "docs/a.md").write_text(
        "One two\nthree four five.\n\n```sh\nnot a sentence here\n```\n"
    )
    house = HOUSE["measure"](tmp_path)
    assert [entry.split()[-1] for entry in HOUSE["banned_identifiers"](tmp_path)] == [
        "told",
        "found",
    ]
    assert (house.dict_str_any_in_src, house.page_code_lines_outside_reports) == (1, 1)
    assert (house.lines_over_100_columns, house.dvc_yaml_lines, house.readme_lines) == (1, 1, 3)
    assert (house.readme_median_words_a_sentence, house.docs_median_words_a_sentence) == (3.5, 5)
    assert house.function_lines_max == 4
    assert house.comment_lines_percent_of_code == 25.0
