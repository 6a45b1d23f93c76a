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
from scores import FailsOnce, Logged, failing, other, smooth

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline, Stage, cost_of
from keras_effnet.cli import main
from keras_effnet.errors import EffNetError, InvalidInputError, MissingExtraError
from keras_effnet.scaling import (
    SEARCH_BASELINE,
    TrainOnFolder,
    candidates,
    search,
    search_architecture,
    search_objective,
)
from keras_effnet.scaling.storage import open_study

GRID = {"step": 0.1, "tolerance": 0.04, "quiet": True}


def _scores(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


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
    found = search(Logged(log), results=tmp_path / "r.json", **GRID)
    grid = candidates(0.1, 0.04)
    assert len(log.read_text().splitlines()) == len(grid) == len(found.rows)
    assert [row.score for row in found.rows] == sorted((row.score for row in found.rows), reverse=True)
    best = max(grid, key=lambda p: smooth(p.alpha, p.beta, round(224 * p.gamma / 8) * 8))
    assert (found.best.alpha, found.best.beta, found.best.gamma) == (best.alpha, best.beta, best.gamma)
    again = search(Logged(log), results=tmp_path / "r.json", **GRID)
    assert len(log.read_text().splitlines()) == len(grid)  # nothing is evaluated twice
    assert again.rows == found.rows


def test_two_workers_give_the_results_of_one(tmp_path: Path) -> None:
    search(Logged(tmp_path / "one"), results=tmp_path / "one.json", **GRID)
    search(Logged(tmp_path / "two", 0.3), results=tmp_path / "two.json", workers=2, **GRID)
    assert _scores(tmp_path / "one.json") == _scores(tmp_path / "two.json")
    assert len({line.split()[-1] for line in (tmp_path / "two").read_text().splitlines()}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_search_ends_with_its_workers_and_resumes(tmp_path: Path, workers: int) -> None:
    log, results = tmp_path / "log", tmp_path / "r.json"
    code = (
        "from pathlib import Path; from scores import Logged; from keras_effnet.scaling import search\n"
        "if __name__ == '__main__':\n"
        f"    search(Logged(Path({str(log)!r}), 0.3), results={str(results)!r}, workers={workers}, step=0.1,"
        " tolerance=0.04, quiet=True)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    try:
        for _ in range(600):
            if results.exists() and len(_scores(results)) >= 2:
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
    before = _scores(results)
    total = len(candidates(0.1, 0.04))
    assert 2 <= len(before) < total
    log.unlink()
    search(Logged(log), results=results, **GRID)
    assert len(log.read_text().splitlines()) == total - len(before)
    search(Logged(tmp_path / "fresh"), results=tmp_path / "fresh.json", **GRID)
    assert _scores(results) == _scores(tmp_path / "fresh.json")


def test_failing_evaluate_names_the_candidate_and_keeps_the_rest(tmp_path: Path) -> None:
    with pytest.raises(EffNetError, match=r"evaluate\(1\.4, .*Received: RuntimeError: out of memory"):
        search(failing, results=tmp_path / "r.json", **GRID)
    kept = _scores(tmp_path / "r.json")
    assert kept and all(row["depth"] <= 1.3 for row in kept)


def test_results_of_another_search_are_refused(tmp_path: Path) -> None:
    search(Logged(tmp_path / "log"), results=tmp_path / "r.json", **GRID)
    with pytest.raises(InvalidInputError, match=r"Received: one with other step \(0\.1, now 0\.2\)"):
        search(Logged(tmp_path / "log"), results=tmp_path / "r.json", step=0.2, tolerance=0.04)
    changed = replace(EFFICIENTNET_B0, resolution=232)
    with pytest.raises(InvalidInputError, match="one with other table"):
        search(Logged(tmp_path / "log"), baseline=changed, results=tmp_path / "r.json", **GRID)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInputError, match="Expected a results file of a search"):
        search(smooth, results=tmp_path / "broken.json", **GRID)


def test_scores_of_another_evaluate_are_refused(tmp_path: Path) -> None:
    search(smooth, results=tmp_path / "r.json", **GRID)
    with pytest.raises(InvalidInputError, match=r"other evaluate \('scores\.smooth', now 'scores\.other'\)"):
        search(other, results=tmp_path / "r.json", **GRID)
    scaled = partial(_times, 2.0)
    search(scaled, results=tmp_path / "p.json", **GRID)
    assert search(scaled, results=tmp_path / "p.json", **GRID).rows[0].score > 1
    with pytest.raises(InvalidInputError, match=r"_times\(2\.0\)', now 'test_search\._times\(3\.0\)'"):
        search(partial(_times, 3.0), results=tmp_path / "p.json", **GRID)


def _times(factor: float, depth: float, width: float, resolution: int) -> float:
    return factor * smooth(depth, width, resolution)


def test_rows_say_what_is_built_and_equal_networks_are_evaluated_once(
    tmp_path: Path, small: Baseline
) -> None:
    fine = {"step": 0.05, "tolerance": 0.05, "baseline": small, "quiet": True}
    found = search(Logged(tmp_path / "log"), results=tmp_path / "r.json", **fine)
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
    few = search(smooth, results=tmp_path / "few.json", settings={"classes": 10}, **fine).rows[0]
    at = {"depth": few.depth, "width": few.width, "resolution": few.resolution, "classes": 10}
    assert few.macs == cost_of(small, **at).macs
    assert few.growth == pytest.approx(few.macs / cost_of(small, classes=10).macs, abs=1e-4)
    search(Logged(tmp_path / "log"), results=tmp_path / "each.json", merge=False, **fine)
    assert len((tmp_path / "log").read_text().splitlines()) == 111


def test_search_for_another_baseline_than_evaluates_is_refused(tmp_path: Path, small: Baseline) -> None:
    evaluate = TrainOnFolder(directory=tmp_path, baseline=small)
    with pytest.raises(InvalidInputError, match=r"the baseline of the search, 'b0'.*trains 'small'"):
        search(evaluate, baseline=EFFICIENTNET_B0, results=tmp_path / "r.json", **GRID)


def test_second_search_on_the_same_file_is_refused(tmp_path: Path) -> None:
    def evaluate(depth: float, width: float, resolution: int) -> float:
        with pytest.raises(InvalidInputError, match="another search writes to"):
            search(smooth, results=tmp_path / "r.json", **GRID)
        return 1.0

    assert search(evaluate, results=tmp_path / "r.json", **GRID).rows[0].score == 1.0


def test_evaluate_that_workers_cannot_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Expected an evaluate that other processes can import"):
        search(lambda *_: 1.0, results=tmp_path / "r.json", workers=2, **GRID)


def test_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "from scores import smooth; from keras_effnet.scaling import search\n"
        f"search(smooth, results={str(tmp_path / 'r.json')!r}, workers=2, quiet=True)\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "put the call under if __name__ == '__main__':" in done.stderr.splitlines()[-1]


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
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "MySQLdb", None)  # not installed, wherever this runs
    with pytest.raises(error, match=message) as raised:
        search(smooth, results=tmp_path / "r.json", storage=storage, **GRID)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_shared_search_evaluates_again_what_failed(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("optuna")
    evaluate, grid = FailsOnce(tmp_path), candidates(0.1, 0.04)
    shared = {"storage": str(tmp_path / "journal"), "workers": workers, **GRID}
    with pytest.raises(EffNetError, match=r"out of memory.*run the search again"):
        search(evaluate, results=tmp_path / "r.json", **shared)
    assert 0 < len(_scores(tmp_path / "r.json")) < len(grid)  # kept as they were finished
    found = search(evaluate, results=tmp_path / "r.json", **shared)
    assert {row.candidate for row in found.rows} == set(grid)
    assert search(evaluate, results=tmp_path / "alone.json", **GRID).rows[0].score == found.rows[0].score


def test_shared_search_uses_and_shares_what_the_local_file_has(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    log = tmp_path / "log"
    search(Logged(log), results=tmp_path / "a.json", **GRID)
    shared = {"storage": str(tmp_path / "journal"), **GRID}
    search(Logged(log), results=tmp_path / "a.json", **shared)
    search(Logged(log), results=tmp_path / "b.json", **shared)
    assert _scores(tmp_path / "b.json") == _scores(tmp_path / "a.json")
    assert len(log.read_text().splitlines()) == len(candidates(0.1, 0.04))


def test_shared_search_takes_up_what_a_dead_machine_began(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    storage = str(tmp_path / "journal")
    search(smooth, results=tmp_path / "a.json", storage=storage, **GRID)
    opened = open_study(storage, "compound-scaling", optuna.samplers.RandomSampler())
    again = open_study(storage, "again", optuna.samplers.RandomSampler())
    again.set_user_attr("settings", opened.user_attrs["settings"])
    dead = again.ask()
    dead.set_user_attr("network", opened.trials[3].user_attrs["network"])
    dead.set_user_attr("owner", "a machine that is gone")
    found = search(smooth, results=tmp_path / "b.json", storage=storage, study="again", **GRID)
    assert len(found.rows) == len(candidates(0.1, 0.04))
    assert again.trials[-1].user_attrs["network"] == dead.user_attrs["network"]  # the last of all


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
        search(smooth, results=tmp_path / "r.json", **arguments)


def test_machines_share_a_storage(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    storage, log = str(tmp_path / "journal"), tmp_path / "log"
    code = (
        "from pathlib import Path; from scores import Logged; from keras_effnet.scaling import search\n"
        f"search(Logged(Path({str(log)!r}), 0.2), results=__import__('sys').argv[1], storage={storage!r}, step=0.1,"
        " tolerance=0.04, quiet=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    machines = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"{name}.json")], env=environment)
        for name in ("a", "b")
    ]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    search(Logged(tmp_path / "alone"), results=tmp_path / "alone.json", **GRID)
    # asked again, each has what both found; nothing more is evaluated
    lines = log.read_text().splitlines()
    for name in ("a", "b"):
        search(Logged(log), results=tmp_path / f"{name}.json", storage=storage, **GRID)
        assert _scores(tmp_path / f"{name}.json") == _scores(tmp_path / "alone.json")
    assert len(log.read_text().splitlines()) == len(lines)
    assert len({line.split()[-1] for line in lines}) == 2
    with pytest.raises(InvalidInputError, match="Expected the study 'compound-scaling' to be of this search"):
        search(smooth, results=tmp_path / "c.json", storage=storage, **GRID)


def test_search_command_prints_what_candidates_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keras_effnet.scaling.TrainOnFolder", lambda **_: Logged(tmp_path / "log"))
    options = ["scale", "search", "pictures", "--results", str(tmp_path / "r.json"), "--quiet"]
    assert main(options) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["alpha", "beta", "gamma", "input", "multiply-adds", "growth", "score", "time"]
    assert len(shown) == 2 + len(candidates()) + 1 and all("×" in line for line in shown[2:-1])
    settings = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["step"], settings["tolerance"]) == (0.1, 0.04)  # as --help says
    fine = ["--step", "0.05", "--tolerance", "0.05", "--results", str(tmp_path / "fine.json")]
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
    score = evaluate(1.2, 1.5, 40)
    assert score >= 0.9
    assert evaluate(1.2, 1.5, 40) == score
    assert evaluate.settings()["epochs"] == 12
    with pytest.raises(InvalidInputError, match="without train/"):
        TrainOnFolder(directory=colours / "train", baseline=table)(1, 1, 32)


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
    assert main(["scale", "search", str(tmp_path / "none"), "--results", str(tmp_path / "r.json")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("keras-effnet: Expected a folder with train/") and "\n" not in said
    assert not (tmp_path / "r.json").exists()


def test_architecture_search_finds_what_the_objective_rewards_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

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
    pytest.importorskip("optuna")
    options = {"target_macs": 20e6, "storage": str(tmp_path / "journal"), "quiet": True}
    for trials in range(1, 8):
        found = search_architecture(_half, SEARCH_BASELINE, trials=trials, **options)
    assert len({each.baseline.stages for each in found}) == 7


def test_architecture_study_of_another_search_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
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

    pytest.importorskip("optuna")
    with pytest.raises(InvalidInputError, match=r"target_macs to be a number above 0.*target_macs=-5"):
        search_architecture(never, SEARCH_BASELINE, target_macs=-5)
    assert main(["scale", "architecture", str(colours), "--target-macs", "0"]) == 2
    assert "Expected target_macs to be a number above 0" in capsys.readouterr().err


def test_architecture_command_trains_and_resumes(
    tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["scale", "architecture", str(colours), "--epochs", "1", "--quiet"]
    options += ["--storage", str(tmp_path / "trials.log")]
    assert main([*options, "--trials", "1", "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)
    target = cost_of(SEARCH_BASELINE).macs
    assert first["objective"] == pytest.approx(first["accuracy"] * (first["macs"] / target) ** -0.07)
    assert main([*options, "--trials", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and "3×k5e4s" in "".join(shown)
