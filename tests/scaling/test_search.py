"""The grid search: its grid, its file, killed and resumed, with two workers, on shared storage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scores import FailsOnce, Logged, other, smooth, threads

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline, Stage, cost_of
from keras_effnet.cli import main
from keras_effnet.errors import EffNetError, InvalidInputError, MissingExtraError
from keras_effnet.scaling import (
    SEARCH_BASELINE,
    SearchResult,
    TrainOnFolder,
    candidates,
    search,
    search_architecture,
    search_objective,
)
from keras_effnet.scaling.search import Row
from keras_effnet.scaling.study import open_study
from keras_effnet.system.resources import cores

pytest.importorskip("optuna")

GRID = {"step": 0.1, "tolerance": 0.04, "quiet": True}


STUDY = "compound-scaling"


def _scores(path: Path) -> dict[str, float]:
    """What a journal has: network → score."""
    trials = open_study(str(path), STUDY, None).get_trials(deepcopy=False)
    return {trial.params["network"]: trial.value for trial in trials if trial.value is not None}


MACHINE = (
    "import os; from pathlib import Path; from scores import Logged; from keras_effnet.scaling import search\n"
    "search(Logged(Path({log!r}), {pause}), storage=os.environ['STORAGE'], step=0.1, tolerance=0.04, quiet=True)\n"
)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def _without_time(found: SearchResult) -> list[Row]:
    return [replace(row, seconds=0.0) for row in found.rows]


@settings(max_examples=30, deadline=None)
@given(step=st.sampled_from([0.05, 0.1, 0.2]), tolerance=st.floats(0.03, 0.3))
def test_grid_keeps_the_papers_constraint(step: float, tolerance: float) -> None:
    grid = candidates(step, tolerance)
    assert len(set(grid)) == len(grid) and list(grid) == sorted(grid)
    for point in grid:
        assert min(point.alpha, point.beta, point.gamma) >= 1
        assert abs(point.alpha * point.beta**2 * point.gamma**2 / 2 - 1) <= tolerance + 1e-9
        for value in (point.alpha, point.beta, point.gamma):
            assert (value - 1) / step == pytest.approx(round((value - 1) / step), abs=1e-6)


def test_papers_coefficients_are_on_the_fine_grid() -> None:
    assert any((p.alpha, p.beta, p.gamma) == (1.2, 1.1, 1.15) for p in candidates(0.05, 0.05))
    corners = {(p.alpha, p.beta, p.gamma) for p in candidates(0.1, 0.04)}
    assert (2.0, 1.0, 1.0) in corners and (1.0, 1.4, 1.0) in corners and (1.0, 1.0, 1.4) in corners


def test_search_evaluates_each_point_once_and_ranks_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = search(Logged(log), storage=str(tmp_path / "r"), **GRID)
    grid = candidates(0.1, 0.04)
    assert len(log.read_text().splitlines()) == len(grid) == len(found.rows)
    assert [row.score for row in found.rows] == sorted((row.score for row in found.rows), reverse=True)
    best = max(grid, key=lambda p: smooth(p.alpha, p.beta, round(224 * p.gamma / 8) * 8))
    assert (found.best.alpha, found.best.beta, found.best.gamma) == (best.alpha, best.beta, best.gamma)
    again = search(Logged(log), storage=str(tmp_path / "r"), **GRID)
    assert len(log.read_text().splitlines()) == len(grid)  # nothing is evaluated twice
    assert again.rows == found.rows


def test_two_workers_give_the_results_of_one(tmp_path: Path) -> None:
    one = search(Logged(tmp_path / "one"), storage=str(tmp_path / "a"), **GRID)
    two = search(Logged(tmp_path / "two", 0.3), storage=str(tmp_path / "b"), workers=2, **GRID)
    assert _without_time(one) == _without_time(two)
    lines = (tmp_path / "two").read_text().splitlines()
    assert len({line.split()[-1] for line in lines}) == 2 and len(lines) == len(one.rows)


@pytest.mark.parametrize(("chosen", "expected"), [(None, max(1, cores() // 2)), ("3", 3)])
def test_workers_share_the_cores_unless_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: int
) -> None:
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", chosen)
    found = search(threads, storage=str(tmp_path / "r"), workers=2, **GRID)
    assert {row.score for row in found.rows} == {expected}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_search_ends_with_its_workers_and_resumes(tmp_path: Path, workers: int) -> None:
    log, storage = tmp_path / "log", tmp_path / "journal"
    code = (
        "from pathlib import Path; from scores import Logged; from keras_effnet.scaling import search\n"
        "if __name__ == '__main__':\n"
        f"    search(Logged(Path({str(log)!r}), 0.3), storage={str(storage)!r}, workers={workers}, step=0.1,"
        " tolerance=0.04, quiet=True)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script)], env=_environment(), start_new_session=True)
    try:
        for _ in range(600):
            if storage.exists() and len(_scores(storage)) >= 2:
                break
            time.sleep(0.05)
        process.kill()  # not its workers: they have to notice
        process.wait()
        time.sleep(0.2)
        begun = len(log.read_text().splitlines())
        time.sleep(0.8)
        assert len(log.read_text().splitlines()) == begun
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the group that this test started
    before = _scores(storage)
    total = len(candidates(0.1, 0.04))
    assert 2 <= len(before) < total
    log.unlink()
    found = search(Logged(log), storage=str(storage), **GRID)
    assert len(log.read_text().splitlines()) == total - len(before)
    fresh = search(Logged(tmp_path / "again"), storage=str(tmp_path / "fresh"), **GRID)
    assert _without_time(found) == _without_time(fresh)


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_evaluate_names_the_candidate_and_is_tried_again(tmp_path: Path, workers: int) -> None:
    evaluate, grid = FailsOnce(tmp_path), candidates(0.1, 0.04)
    shared = {"storage": str(tmp_path / "journal"), "workers": workers, **GRID}
    message = r"evaluate\(.*Received: RuntimeError: out of memory\. Mend that and run the search again"
    with pytest.raises(EffNetError, match=message):
        search(evaluate, **shared)
    assert 0 < len(_scores(tmp_path / "journal")) < len(grid)  # kept as they were finished
    found = search(evaluate, **shared)
    assert {row.candidate for row in found.rows} == set(grid)
    assert len((tmp_path / "calls").read_text().splitlines()) == len(grid) + 1


def test_evaluate_without_a_finite_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EffNetError, match=r"to return a finite score\. Received: nan"):
        search(_nothing, storage=str(tmp_path / "r"), **GRID)


def test_study_of_another_search_is_refused(tmp_path: Path) -> None:
    search(Logged(tmp_path / "log"), storage=str(tmp_path / "r"), **GRID)
    with pytest.raises(InvalidInputError, match=r"Received: one with other step \(0\.1, now 0\.2\)"):
        search(Logged(tmp_path / "log"), storage=str(tmp_path / "r"), step=0.2, tolerance=0.04)
    first, *others = EFFICIENTNET_B0.stages
    changed = replace(EFFICIENTNET_B0, stages=(replace(first, repeats=2), *others))
    with pytest.raises(InvalidInputError, match="one with other table"):
        search(Logged(tmp_path / "log"), baseline=changed, storage=str(tmp_path / "r"), **GRID)
    (tmp_path / "broken").write_text("{\n{\n")
    with pytest.raises(
        InvalidInputError, match="Expected a database URL, or a journal file that can be read"
    ):
        search(smooth, storage=str(tmp_path / "broken"), **GRID)


def _nothing(depth: float, width: float, resolution: int) -> float:
    return float("nan")


def test_scores_of_another_evaluate_are_refused(tmp_path: Path) -> None:
    search(smooth, storage=str(tmp_path / "r"), **GRID)
    with pytest.raises(InvalidInputError, match=r"other evaluate \('scores\.smooth', now 'scores\.other'\)"):
        search(other, storage=str(tmp_path / "r"), **GRID)
    scaled = partial(_times, 2.0)
    search(scaled, storage=str(tmp_path / "p"), **GRID)
    assert search(scaled, storage=str(tmp_path / "p"), **GRID).rows[0].score > 1
    with pytest.raises(InvalidInputError, match=r"_times\(2\.0\)', now 'test_search\._times\(3\.0\)'"):
        search(partial(_times, 3.0), storage=str(tmp_path / "p"), **GRID)


def _times(factor: float, depth: float, width: float, resolution: int) -> float:
    return factor * smooth(depth, width, resolution)


def test_rows_say_what_is_built_and_equal_networks_are_evaluated_once(
    tmp_path: Path, small: Baseline
) -> None:
    fine = {"step": 0.05, "tolerance": 0.05, "baseline": small, "quiet": True}
    found = search(Logged(tmp_path / "log"), storage=str(tmp_path / "r"), **fine)
    assert len(found.rows) == len(candidates(0.05, 0.05)) == 111
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len({row.network for row in found.rows}) < 111
    scores: dict[tuple[str, int, float], set[float]] = {}
    for row in found.rows:
        counted = cost_of(small, depth=row.depth, width=row.width, resolution=row.resolution).macs
        assert row.macs == counted
        assert row.growth == pytest.approx(counted / cost_of(small).macs, abs=1e-4)
        scores.setdefault((row.network, row.macs, row.growth), set()).add(row.score)
    assert all(len(same) == 1 for same in scores.values())
    assert max(row.growth for row in found.rows) > 2.1  # the formula's tolerance is not the built one's
    (tmp_path / "log").unlink()
    few = search(smooth, storage=str(tmp_path / "few"), settings={"classes": 10}, **fine).rows[0]
    at = {"depth": few.depth, "width": few.width, "resolution": few.resolution, "classes": 10}
    assert few.macs == cost_of(small, **at).macs
    assert few.growth == pytest.approx(few.macs / cost_of(small, classes=10).macs, abs=1e-4)
    search(Logged(tmp_path / "log"), storage=str(tmp_path / "each"), merge=False, **fine)
    assert len((tmp_path / "log").read_text().splitlines()) == 111


def test_search_for_another_baseline_than_evaluates_is_refused(tmp_path: Path, small: Baseline) -> None:
    evaluate = TrainOnFolder(directory=tmp_path, baseline=small)
    with pytest.raises(InvalidInputError, match=r"the baseline of the search, 'b0'.*trains 'small'"):
        search(evaluate, baseline=EFFICIENTNET_B0, storage=str(tmp_path / "r"), **GRID)


def test_evaluate_that_workers_cannot_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Expected an evaluate that other processes can import"):
        search(lambda *_: 1.0, storage=str(tmp_path / "r"), workers=2, **GRID)


def test_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "from scores import smooth; from keras_effnet.scaling import search\n"
        f"search(smooth, storage={str(tmp_path / 'r')!r}, workers=2, quiet=True)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    # Python's own tracker of resources may have a last word behind it
    assert "put the call under if __name__ == '__main__':" in done.stderr


@pytest.mark.parametrize(
    ("storage", "error", "message"),
    [
        ("missing/journal", InvalidInputError, "Expected a journal file in a folder that exists"),
        ("mysql://user:secret@host/base", MissingExtraError, r"driver of the database.*\(mysql\)"),
        ("nothing://here", InvalidInputError, "Expected a database URL, or a journal file"),
        ("sqlite:////missing/base.db", InvalidInputError, "Expected a database URL, or a journal file"),
    ],
)
def test_unusable_storage_is_refused(
    storage: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "MySQLdb", None)  # not installed, wherever this runs
    with pytest.raises(error, match=message) as raised:
        search(smooth, storage=storage, **GRID)
    assert "secret" not in str(raised.value)


def test_search_takes_up_what_a_dead_machine_began(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    dead = subprocess.Popen([sys.executable, "-c", MACHINE.format(log=str(tmp_path / "dead"), pause=60)],
                            env=_environment() | {"STORAGE": storage})  # fmt: skip
    for _ in range(600):
        if (tmp_path / "dead").exists():
            break
        time.sleep(0.05)
    dead.kill()
    dead.wait()
    found = search(Logged(tmp_path / "log"), storage=storage, **GRID)
    assert len(found.rows) == len(candidates(0.1, 0.04))
    begun = (tmp_path / "dead").read_text().split()[:3]
    assert (tmp_path / "log").read_text().splitlines()[-1].split()[:3] == begun  # the last of all


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0}, "Expected 0 < step"),
        ({"step": 0.9, "tolerance": 0.01}, "Expected a grid with points"),
        ({"workers": 0}, "Expected workers to be a whole number of at least 1"),
    ],
)
def test_useless_search_is_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        search(smooth, storage=str(tmp_path / "r"), **arguments)


def test_machines_share_a_storage(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "journal"), tmp_path / "log"
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", MACHINE.format(log=str(log), pause=0.2)],
            env=_environment() | {"STORAGE": storage},
        )
        for _ in range(2)
    ]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    lines = log.read_text().splitlines()
    assert len({line.split()[-1] for line in lines}) == 2
    # asked again, nothing more is evaluated
    shared = search(Logged(log), storage=storage, **GRID)
    assert len(log.read_text().splitlines()) == len(lines)
    alone = search(Logged(tmp_path / "alone"), storage=str(tmp_path / "own"), **GRID)
    assert _without_time(shared) == _without_time(alone)
    with pytest.raises(InvalidInputError, match="Expected the study 'compound-scaling' to be of this search"):
        search(smooth, storage=storage, **GRID)


def test_search_command_prints_what_candidates_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keras_effnet.commands.searches.TrainOnFolder", lambda **_: Logged(tmp_path / "log"))
    options = ["scale", "search", str(tmp_path), "--storage", str(tmp_path / "r"), "--quiet"]
    assert main(options) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["alpha", "beta", "gamma", "input", "multiply-adds", "growth", "score", "time"]
    assert len(shown) == 2 + len(candidates()) + 1 and all("×" in line for line in shown[2:-1])
    settings = json.loads(open_study(str(tmp_path / "r"), STUDY, None).user_attrs["settings"])
    assert (settings["step"], settings["tolerance"]) == (0.1, 0.04)  # as --help says
    fine = ["--step", "0.05", "--tolerance", "0.05", "--storage", str(tmp_path / "fine")]
    assert main([*options, *fine]) == 0
    assert "111 candidates build 41 networks; the same ones were trained once" in capsys.readouterr().out


def test_objective_is_the_papers() -> None:
    assert search_objective(0.77, 400e6, 400e6) == pytest.approx(0.77)
    assert search_objective(0.77, 800e6, 400e6) == pytest.approx(0.77 * 2**-0.07)
    assert search_objective(0.5, 200e6, 400e6, trade_off=0) == 0.5
    for wrong in ((1.2, 1, 1), (0.5, 0, 1), (0.5, 1, -1)):
        with pytest.raises(InvalidInputError, match="Expected an accuracy from 0 to 1"):
            search_objective(*wrong)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that a glance tells apart: red and blue noise."""
    root = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("validation", 8)):
        for label, channel in (("red", 0), ("blue", 2)):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(root / part / label / f"{number}.png")
    return root


def test_training_on_a_folder_learns_and_repeats_itself(colours: Path) -> None:
    row = Stage(repeats=1, kernel_size=3, stride=2, filters_in=8, filters_out=16, block="separable")
    table = Baseline(name="two", title="Two", stem_filters=8, stages=(row,), resolution=32)
    evaluate = TrainOnFolder(directory=colours, baseline=table, epochs=12, batch_size=8)
    np.random.seed(7)
    drawn = np.random.RandomState(7).random_sample(2)
    score = evaluate(1.2, 1.5, 40)
    assert score >= 0.9
    assert np.random.random_sample() == drawn[0]  # the caller's random numbers are the caller's
    assert evaluate(1.2, 1.5, 40) == score
    assert evaluate.settings()["epochs"] == 12
    with pytest.raises(InvalidInputError, match="without train/"):
        TrainOnFolder(directory=colours / "train", baseline=table)(1, 1, 32)


def test_worker_keeps_the_remarks_of_tensorflow_off_the_searchs_terminal(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    monkeypatch.setattr("keras_effnet.scaling.training.parent_process", object)
    monkeypatch.setattr("keras_effnet.scaling.training.import_keras", lambda: began.append("quietly"))
    with pytest.raises(InvalidInputError, match="without train/"):
        TrainOnFolder(directory=colours / "train")(1, 1, 32)
    assert began == ["quietly"]


def test_settings_change_with_the_pictures(colours: Path, tmp_path: Path) -> None:
    copy = tmp_path / colours.name
    shutil.copytree(colours, copy)
    before = TrainOnFolder(directory=colours).settings()
    assert (before["classes"], before["train"], before["validation"]) == (2, 48, 16)
    assert TrainOnFolder(directory=copy).settings() == before  # wherever they lie
    (copy / "train" / "red" / "0.png").write_bytes(b"")
    assert TrainOnFolder(directory=copy).settings() != before


def test_search_command_checks_the_folder_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", "search", str(tmp_path / "none"), "--storage", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("keras-effnet: Expected a folder with train/") and "\n" not in said
    assert not (tmp_path / "r").exists()


def test_architecture_search_finds_what_the_objective_rewards_and_resumes(tmp_path: Path) -> None:

    tried: list[Baseline] = []

    def evaluate(table: Baseline) -> float:
        tried.append(table)
        return 0.5 + 0.1 * sum(stage.kernel_size == 5 for stage in table.stages)

    options = {"target_macs": 20e6, "storage": str(tmp_path / "journal"), "quiet": True}
    first = search_architecture(evaluate, SEARCH_BASELINE, trials=10, **options)
    assert [stage.kernel_size for stage in tried[0].stages] == [3, 3, 5, 3]  # begins where it was told
    assert len(tried) == 10 == len(first)
    found = search_architecture(evaluate, SEARCH_BASELINE, trials=40, **options)
    assert len(tried) == 40 == len(found)
    best = found[0]
    assert best.objective == max(each.objective for each in found)
    assert best.objective == pytest.approx(search_objective(best.accuracy, best.macs, 20e6))
    assert best.objective > search_objective(0.6, first[-1].macs, 20e6)
    assert sum(stage.kernel_size == 5 for stage in best.baseline.stages) >= 3


def test_architecture_search_tries_other_tables_after_each_resume(tmp_path: Path) -> None:
    options = {"target_macs": 20e6, "storage": str(tmp_path / "journal"), "quiet": True}
    for trials in range(1, 8):
        found = search_architecture(_half, SEARCH_BASELINE, trials=trials, **options)
    assert len({each.baseline.stages for each in found}) == 7


def test_architecture_study_of_another_search_is_refused(tmp_path: Path) -> None:
    options = {"trials": 1, "storage": str(tmp_path / "journal"), "quiet": True}
    search_architecture(_half, SEARCH_BASELINE, target_macs=20e6, **options)
    with pytest.raises(InvalidInputError, match=r"other target_macs \(20000000\.0, now 80000000\.0\)"):
        search_architecture(_half, SEARCH_BASELINE, target_macs=80e6, **options)
    with pytest.raises(InvalidInputError, match="one with other evaluate"):
        search_architecture(lambda _: 0.5, SEARCH_BASELINE, target_macs=20e6, **options)


def _half(_: Baseline) -> float:
    return 0.5


def test_useless_target_is_refused_before_anything_is_trained(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(_: Baseline) -> float:
        raise AssertionError("trained")

    with pytest.raises(InvalidInputError, match=r"target_macs to be a number above 0.*target_macs=-5"):
        search_architecture(never, SEARCH_BASELINE, target_macs=-5)
    with pytest.raises(SystemExit, match="2"):
        main(["scale", "architecture", str(colours), "--target-macs", "0"])
    assert "--target-macs: expected a number above 0" in capsys.readouterr().err


def test_architecture_command_trains_and_resumes(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = replace(SEARCH_BASELINE, stages=SEARCH_BASELINE.stages[:2], resolution=32)  # trains in a moment
    monkeypatch.setattr("keras_effnet.commands.searches.SEARCH_BASELINE", start)
    options = ["scale", "architecture", str(colours), "--epochs", "1", "--quiet"]
    options += ["--storage", str(tmp_path / "trials.log")]
    assert main([*options, "--trials", "1", "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)
    target = cost_of(start).macs
    assert first["objective"] == pytest.approx(first["accuracy"] * (first["macs"] / target) ** -0.07)
    assert main([*options, "--trials", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and "2×k3e4s" in "".join(shown)
