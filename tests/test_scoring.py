"""Many photographs: the same answers from any number of processes, whoever is killed, and whatever the disk does."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from full_disk import full_disk
from PIL import Image

from keras_effnet import export
from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export import scoring
from keras_effnet.export.scoring import Scores, parts, workers
from keras_effnet.export.scoring.work import Answers, Question, nothing
from keras_effnet.export.scoring.workers import KILLED, Crew, DiedError
from keras_effnet.pictures.framing import Framing

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

COUNT = 40
BROKEN = {7: b"no picture", 33: b""}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures, each brighter than the one before; two of them are none."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(COUNT):
        path = folder / f"{index:03}.png"
        if index in BROKEN:
            path.write_bytes(BROKEN[index])
        else:
            Image.new("RGB", (40, 48), (6 * index,) * 3).save(path)
    return folder


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "RUN", 4)


def _brightnesses(rows: Sequence[dict[str, Any]]) -> list[float]:
    """What each row says of the class `bright`; -1 for an error."""
    return [
        {guess["label"]: guess["probability"] for guess in row["predictions"]}["bright"]
        if "error" not in row
        else -1
        for row in rows
    ]


def test_processes_give_what_one_gives_in_the_order_of_the_photographs(
    brightness: Path, pictures: Path
) -> None:
    alone = list(export.score(brightness, pictures, workers=0))
    scores = export.score(brightness, pictures, workers=2)
    assert len(scores) == COUNT and list(scores) == alone
    found = _brightnesses(alone)
    assert [index for index, value in enumerate(found) if value < 0] == sorted(BROKEN)
    assert "'" + str(pictures / "007.png") + "'" in alone[7]["error"]
    readable = [value for value in found if value >= 0]
    assert readable == sorted(readable) and readable[-1] - readable[0] > 0.2
    any_order = list(export.score(brightness, pictures, workers=2, ordered=False))
    assert sorted(any_order, key=lambda row: row["file"]) == alone


def test_script_without_a_main_guard_scores_with_processes(
    brightness: Path, pictures: Path, tmp_path: Path
) -> None:
    """And its workers neither run it again nor load TensorFlow."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom keras_effnet import export\nprint('once')\n"
        f"print(len(list(export.score({str(brightness)!r}, {str(pictures)!r}, workers=1))))\n"
        "print('tensorflow' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["once", "40", "False"]


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of any kind of file in the form of JSON lines."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        names = ("class_index", "label", "probability")
        return [
            {"file": row["file"], "error": row["error"]}
            if row["error"] is not None
            else {
                "file": row["file"],
                "predictions": [
                    dict(zip(names, guess, strict=True))
                    for guess in zip(*(row[name] for name in names), strict=True)
                ],
            }
            for row in rows
        ]
    found: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row = found.setdefault(line["file"], {"file": line["file"]})
            if line["error"]:
                row["error"] = line["error"]
                continue
            guess = {
                "class_index": int(line["class_index"]),
                "label": line["label"],
                "probability": float(line["probability"]),
            }
            row.setdefault("predictions", []).append(guess)
    return list(found.values())


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_holds_the_same_rows(
    ending: str, brightness: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"scores{ending}"
    written = export.score(brightness, pictures, workers=0).write(out)
    assert (written.photographs, written.failed, len(written.errors)) == (COUNT, 2, 2)
    assert _read(out) == list(export.score(brightness, pictures, workers=0))
    assert os.listdir(tmp_path) == [out.name]  # noqa: PTH208 - nothing else is left


def test_all_values_are_columns_of_a_table(brightness: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    scores = export.score(brightness, pictures, top=None, workers=0)
    table = scores.table()
    assert table.column_names == ["file", "probabilities", "error"]
    assert json.loads(table.schema.metadata[b"labels"]) == ["dark", "bright"]
    values = table.column("probabilities").to_pylist()
    assert values[7] is None and values[0] == pytest.approx([0.5, 0.5])
    scores.write(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["file", "dark", "bright", "error"]
    assert float(lines[39]["bright"]) == pytest.approx(values[39][1]) and lines[7]["bright"] == ""


def test_list_of_files_is_read_from_its_folder_and_each_file_once(
    brightness: Path, pictures: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    relative = os.path.relpath(pictures / "003.png", tmp_path)
    listed.write_text(f"label,file\nx,{relative}\ny,{pictures / '004.png'}\nz,{relative}\n")
    assert [Path(row["file"]).name for row in export.score(brightness, listed)] == ["003.png", "004.png"]
    listed.write_text("label,file\nx,\n")
    with pytest.raises(
        InvalidInputError, match=r"Expected a file in line 2 of .*list\.csv'\. Received: none"
    ):
        export.score(brightness, listed)


def test_file_whose_name_is_no_utf_8_has_a_row(brightness: Path, pictures: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.png")
    (tmp_path / name).write_bytes((pictures / "010.png").read_bytes())
    export.score(brightness, [tmp_path / name]).write(tmp_path / "x.jsonl")
    (row,) = _read(tmp_path / "x.jsonl")
    assert row["file"].endswith("gr\ufffdn.png") and "predictions" in row


class _Fake:
    """A worker that says how often it was asked; what is called poison ends it, and so does what is called flaky, once."""

    alive = 0
    flaky: set[str]

    def __init__(self) -> None:
        _Fake.alive += 1

    def answer(self, photographs: Sequence[str]) -> Answers:
        for photograph in photographs:
            if "poison" in photograph or photograph in _Fake.flaky:
                _Fake.flaky.discard(photograph)
                raise DiedError("was killed by signal 11")
        made = nothing(QUESTION)
        made.count = len(photographs)
        made.values = np.array([[float(photograph)] for photograph in photographs], np.float32)
        return made

    def close(self) -> None:
        _Fake.alive -= 1


QUESTION = Question(framing=Framing(), size=32, output="x", columns=1, top=None)


def _asked(runs: Iterator[tuple[int, list[str]]] | list[tuple[int, list[str]]]) -> dict[int, Answers]:
    return dict(Crew(_Fake, 2, QUESTION).answers(runs, ordered=True))


def test_picture_that_kills_its_worker_costs_only_itself() -> None:
    _Fake.flaky = {"4"}
    found = _asked([(0, ["0", "1", "poison", "3"]), (4, ["4", "5"])])
    assert list(found) == [0, 4]
    assert list(found[0].errors) == [2] and KILLED in found[0].errors[2] and "'poison'" in found[0].errors[2]
    assert found[0].values.ravel().tolist() == [0, 1, 3] and found[4].values.ravel().tolist() == [4, 5]
    assert _Fake.alive == 0


def test_workers_that_die_at_everything_end_the_scoring() -> None:
    _Fake.flaky = set()
    with pytest.raises(ExportError, match=r"Expected workers that answer\. Received: 6 that died one after"):
        _asked([(0, ["poison 1", "poison 2", "poison 3"])])
    assert _Fake.alive == 0


def test_killed_worker_loses_nothing(
    brightness: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    popen = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", recorded)
    begun: list[Any] = []  # one that is killed before it could answer at all is an error
    answer = workers.LocalProcess.answer

    def noted(self: Any, photographs: Any) -> Any:
        answers = answer(self, photographs)
        begun.append(self.process)
        return answers

    monkeypatch.setattr(workers.LocalProcess, "answer", noted)
    rows = iter(export.score(brightness, pictures, workers=2))
    first = [next(rows)]
    begun[0].send_signal(signal.SIGKILL)
    assert [*first, *rows] == list(export.score(brightness, pictures, workers=0))
    assert all(process.poll() is not None for process in started)


def test_whoever_stops_reading_leaves_no_process(
    brightness: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = workers.LocalProcess.close
    monkeypatch.setattr(workers.LocalProcess, "close", lambda self: (closed.append(self), close(self)))
    rows = iter(export.score(brightness, pictures, workers=1))
    next(rows)
    rows.close()  # type: ignore[attr-defined] - a generator
    assert closed and closed[0].process.poll() is not None


def _recorded(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """Which runs are kept from now on; an error instead of one more than `stop_after`."""
    kept: list[int] = []
    record = parts.Parts.record

    def recorded(self: Any, start: int, answers: Answers) -> None:
        if len(kept) == stop_after:
            raise KeyboardInterrupt
        record(self, start, answers)
        kept.append(start)

    monkeypatch.setattr(parts.Parts, "record", recorded)
    return kept


def test_interrupted_scoring_goes_on_without_asking_twice(
    brightness: Path, pictures: Path, tmp_path: Path
) -> None:
    scores, out = export.score(brightness, pictures, workers=0), tmp_path / "scores.jsonl"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before = _recorded(patch, stop_after=3)
        scores.write(out)
    assert not out.exists() and (tmp_path / "scores.jsonl.parts").is_dir()
    for other, message in (
        (export.score(brightness, pictures, top=1), "Received: other options"),
        (export.score(brightness, sorted(pictures.iterdir())[1:]), "Received: other photographs"),
        (export.score(brightness, pictures, labels=["a", "b"]), "Received: other class names"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            other.write(out)
    (tmp_path / "scores.jsonl.parts" / f"{before[1]:09}.npz").write_bytes(b"cut by a power failure")
    with pytest.MonkeyPatch.context() as patch:
        after = _recorded(patch)
        scores.write(out)
    assert sorted([*after, before[0], before[2]]) == list(range(0, COUNT, 4))
    assert _read(out) == list(scores)


def test_second_writer_is_refused(brightness: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    (tmp_path / "scores.csv.parts").mkdir()
    scores = export.score(brightness, pictures)
    lock = FileLock(tmp_path / "scores.csv.parts" / "lock")
    with lock, pytest.raises(InvalidInputError, match="Expected nobody else to write"):
        scores.write(out)


def test_full_disk_is_one_line_and_loses_nothing(brightness: Path, pictures: Path, tmp_path: Path) -> None:
    scores, out = export.score(brightness, pictures, workers=0), tmp_path / "scores.csv"
    with pytest.raises(ExportError, match=r"scores\.csv.*File too large.*Free some space"), full_disk(900):
        scores.write(out)
    assert not out.exists()
    scores.write(out)
    assert _read(out) == list(scores)


def test_parent_killed_with_9_goes_on_with_what_was_kept(
    brightness: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.jsonl"
    code = (
        "import sys, time\nfrom keras_effnet import export\nfrom keras_effnet.export import scoring\n"
        "from keras_effnet.export.scoring import parts\nscoring.RUN = 4\nrecord = parts.Parts.record\n"
        "def slow(*a):\n    record(*a); print(a[1], flush=True); time.sleep(0.3)\n"
        "parts.Parts.record = slow\n"
        f"export.score({str(brightness)!r}, {str(pictures)!r}, workers=1).write({str(out)!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        kept = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
    with pytest.MonkeyPatch.context() as patch:
        again = _recorded(patch)
        export.score(brightness, pictures, workers=0).write(out)
    assert not set(kept) & set(again)
    assert _read(out) == list(export.score(brightness, pictures, workers=0))


def test_file_that_no_process_can_open_is_one_line(brightness: Path, pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.onnx"
    copy.write_bytes(brightness.read_bytes())
    scores = export.score(copy, pictures, workers=1)
    copy.write_bytes(b"\x08\x07")
    with pytest.raises(InvalidInputError, match=r"Expected a complete artefact at .*m\.onnx'"):
        list(scores)


def test_embedding_is_refused_for_the_best_classes_and_given_as_values(scores_of_embedding: Scores) -> None:
    (row, *_) = scores_of_embedding
    assert list(row) == ["file", "embedding"] and len(row["embedding"]) == 2


@pytest.fixture
def scores_of_embedding(brightness: Path, pictures: Path, tmp_path: Path) -> Scores:
    """The same file, which says that its output is an embedding."""
    from keras_effnet.export.model_facts import ArtefactInfo
    from keras_effnet.export.outputs import Output
    from keras_effnet.weights.checkpoint import METADATA_KEY

    told = ArtefactInfo(
        name="x",
        variant=None,
        recipe="float32",
        preprocessing="none",
        layout="nchw",
        outputs=(Output(name="probabilities", kind="embedding"),),
    )
    model = onnx.load(brightness)
    onnx.helper.set_model_props(model, {METADATA_KEY: told.to_json()})
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(InvalidInputError, match=r"which gives an embedding\. Pass top=None"):
        export.score(tmp_path / "e.onnx", pictures)
    return export.score(tmp_path / "e.onnx", pictures, top=None, workers=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "Expected engine to be one of processes, ray"),
        ({"output": "features"}, "Expected output to be one of probabilities"),
        ({"labels": ["a"]}, "Expected 2 class names"),
        ({"size": 64}, "Expected a file with a square input of 64 pixels"),
        ({"photographs": []}, "Expected at least one photograph"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_computed(
    options: dict[str, Any], message: str, brightness: Path, pictures: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        export.score(**{"file": brightness, "photographs": pictures} | options)
