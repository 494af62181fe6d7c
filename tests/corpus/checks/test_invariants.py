"""Every rule across rows and files has a corpus that breaks it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.checks.findings import Finding
from arl.corpus.checks.invariants import check_across
from arl.corpus.manifest import SCHEMA
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import SPLIT_SCHEMA

Damage = Callable[[Path], None]
NOTHING = pd.DataFrame({"id": pd.Series(dtype=str)})
MANIFEST, SPLIT = "clinic/0000/manifest.parquet", "clinic/0000/splits/default.parquet"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two sources of six images of three patients, each with a clip; all of them in train."""
    for seed, source in enumerate(("clinic", "it's a hospital".replace(" ", "_").replace("'", ""))):
        random = np.random.default_rng(seed)
        with BatchWriter(
            tmp_path / "it's",
            source,
            "0000",
            64,
            origin=BatchOrigin(licence="CC0", citation="none"),
        ) as batch:
            for i in range(6):
                image = random.integers(0, 256, (37, 53), dtype=np.uint8)
                named = {"patient": f"p{i // 2}", "clip": f"c{i // 2}", "frame": i % 2}
                splits = {"default": "train", "official": "train"}
                batch.accept(image, key=f"k{i}", anatomy="breast", splits=splits, **named)
            batch.refuse("broken.dcm", "not a DICOM file")
    return tmp_path / "it's"


def failing(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if not finding.passed}


def rewrite(file: str, change: Callable[[pd.DataFrame], object]) -> Damage:
    def damage(corpus: Path) -> None:
        schema = SCHEMA if file.endswith("manifest.parquet") else SPLIT_SCHEMA
        table = pq.read_table(corpus / file).to_pandas()
        changed = change(table)
        table = changed if isinstance(changed, pd.DataFrame) else table
        pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), corpus / file)

    return damage


def put(file: str, column: str, value: object, *rows: int) -> Damage:
    return rewrite(
        file,
        lambda table: table.__setitem__(
            column, [value if i in rows else v for i, v in enumerate(table[column])]
        ),
    )


def both(*damages: Damage) -> Damage:
    def damage(corpus: Path) -> None:
        for one in damages:
            one(corpus)

    return damage


def count(key: str, value: object) -> Damage:
    def damage(corpus: Path) -> None:
        file = corpus / "clinic/0000/batch.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

    return damage


def no_shard(corpus: Path) -> None:
    shard = corpus / "clinic/0000/shard-00000.parquet"
    shard.rename(shard.with_name("shard-00007.parquet"))


def swap(table: pd.DataFrame) -> None:
    table["row"] = table["row"].to_numpy()[[1, 0, 2, 3, 4, 5]]


def emptied(corpus: Path) -> None:
    for manifest in corpus.glob("*/*/manifest.parquet"):
        for file in (
            manifest,
            *manifest.parent.glob("splits/*.parquet"),
            *manifest.parent.glob("shard-*.parquet"),
        ):
            pq.write_table(pq.read_schema(file).empty_table(), file)
        about = json.loads((manifest.parent / "batch.json").read_text())
        about |= {"images": 0, "splits": {}}
        (manifest.parent / "batch.json").write_text(json.dumps(about))
        (manifest.parent / "shard-00000.parquet").unlink()


FOREIGN = "its_a_hospital/0000/"
OFFICIAL = "clinic/0000/splits/official.parquet"
# rule -> what breaks it, and the rules that this breaks with it
BAD_CORPORA: dict[str, tuple[Damage, set[str]]] = {
    "rows": (emptied, set()),
    "id-unique": (put(MANIFEST, "id", "clinic:k0", 1), {"shards-agree", "split-known"}),
    "place-unique": (put(MANIFEST, "row", 0, 1), {"shards-agree"}),
    "pixels-unique": (put(MANIFEST, "pixel_sha256", "0" * 64, 0, 1), set()),
    "patient-split": (
        both(
            put(SPLIT, "split", "val", 1), rewrite(MANIFEST, lambda table: table.assign(clip=None))
        ),
        set(),
    ),
    "clip-split": (
        both(
            put(SPLIT, "split", "val", 1),
            rewrite(MANIFEST, lambda table: table.assign(patient=None)),
        ),
        set(),
    ),
    "pixel-split": (
        both(
            put(MANIFEST, "pixel_sha256", "0" * 64, 0),
            put(FOREIGN + "manifest.parquet", "pixel_sha256", "0" * 64, 3),
            rewrite(FOREIGN + "splits/default.parquet", lambda table: table.assign(split="test")),
        ),
        {"pixels-unique"},
    ),
    "patient-split-unused": (put(OFFICIAL, "split", "val", 1), set()),
    "split-complete": (rewrite(SPLIT, lambda table: table.drop(2)), set()),
    "split-known": (put(OFFICIAL, "id", "clinic:k9", 2), set()),
    "batch-place": (
        put(MANIFEST, "batch", "0001", 0),
        {"split-complete", "split-known", "shards-agree"},
    ),
    "batch-counts": (count("num_inputs", 8), set()),
    "shards-present": (no_shard, {"shards-agree"}),
    "shards-agree": (rewrite(MANIFEST, swap), set()),
}


def test_a_clean_corpus_passes_and_every_rule_has_a_bad_one(corpus: Path) -> None:
    findings = check_across(corpus, {}, NOTHING)
    assert failing(findings) == set()
    assert {finding.rule for finding in findings} == set(BAD_CORPORA)
    checked = {finding.rule: finding.checked for finding in findings}
    assert checked["id-unique"] == checked["pixel-split"] == 12
    assert checked["patient-split"] == checked["clip-split"] == 6
    assert checked["split-known"] == 24
    assert checked["shards-agree"] == checked["shards-present"] == checked["batch-counts"] == 2


@pytest.mark.parametrize("rule", BAD_CORPORA)
def test_each_bad_corpus_breaks_its_rule(corpus: Path, rule: str) -> None:
    damage, others = BAD_CORPORA[rule]
    damage(corpus)
    assert failing(check_across(corpus, {}, NOTHING)) == {rule} | others


@pytest.mark.parametrize(
    ("key", "value"), [("images", 5), ("num_inputs", 6), ("refused", 0), ("accepted", 7)]
)
def test_counts_that_do_not_add_up(corpus: Path, key: str, value: int) -> None:
    count(key, value)(corpus)
    [finding] = [finding for finding in check_across(corpus, {}, NOTHING) if not finding.passed]
    assert (finding.rule, finding.failed, finding.examples) == ("batch-counts", 1, ("clinic/0000",))


def test_splits_in_use_are_the_protocol_of_the_source(corpus: Path) -> None:
    put(SPLIT, "split", "val", 1)(corpus)
    found = {finding.rule: finding for finding in check_across(corpus, {}, NOTHING)}
    assert found["patient-split"].examples == ("clinic:p0",)
    assert found["clip-split"].examples == ("clinic:c0",)
    assert failing(check_across(corpus, {"clinic": "official"}, NOTHING)) == {
        "patient-split-unused"
    }
    assert "split-complete" in failing(check_across(corpus, {"clinic": "fold-9"}, NOTHING))


def test_what_the_leak_gate_withholds_is_on_no_side(corpus: Path) -> None:
    BAD_CORPORA["pixel-split"][0](corpus)
    withheld = pd.DataFrame({"id": ["clinic:k0"]})
    assert failing(check_across(corpus, {}, withheld)) == {"pixels-unique"}
    assert "pixel-split" in failing(check_across(corpus, {}, pd.DataFrame({"id": ["clinic:k1"]})))


def test_offenders_are_counted_and_some_are_named(corpus: Path) -> None:
    rewrite(SPLIT, lambda table: table.iloc[:0])(corpus)
    [finding] = [f for f in check_across(corpus, {}, NOTHING) if f.rule == "split-complete"]
    assert (finding.checked, finding.failed) == (12, 6)
    assert finding.examples == tuple(f"clinic:k{number}" for number in range(5))


def test_a_missing_and_an_unnamed_shard(corpus: Path) -> None:
    no_shard(corpus)
    [finding] = [f for f in check_across(corpus, {}, NOTHING) if f.rule == "shards-present"]
    assert finding.examples == (
        "clinic/0000/shard-00000.parquet",
        "clinic/0000/shard-00007.parquet",
    )


@pytest.mark.parametrize("file", [MANIFEST, SPLIT, "clinic/0000/shard-00000.parquet"])
def test_a_file_that_is_no_parquet_is_named(corpus: Path, file: str) -> None:
    (corpus / file).write_text("nonsense")
    with pytest.raises(ValueError, match=f"{file} is not a readable parquet"):
        check_across(corpus, {}, NOTHING)


def test_a_file_of_other_columns_is_named(corpus: Path) -> None:
    pq.write_table(pa.table({"id": [1], "other": [2]}), corpus / SPLIT)
    with pytest.raises(ValueError, match=r"missing \['split'\], of another type \['id'\]"):
        check_across(corpus, {}, NOTHING)
