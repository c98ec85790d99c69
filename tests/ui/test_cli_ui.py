"""`seer ui` and `seer demo`, as a person types them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

import ui.cli
from indexer.collection import hash_content
from tests.indexer.making import build, draw
from tests.ui.conftest import REPOSITORY, Gallery, start_server
from ui.samples import SampleCounts
from ui.server import PortTaken, list_addresses, require_free, show_address, try_port


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from ui.cli import main; main(prog_name='seer')", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_has_everything_and_waits_for_nothing_heavy():
    code = (
        "import sys; from ui.cli import main; print(*sorted(main.commands));"
        "print([name for name in ('torch', 'streamlit', 'faiss') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    commands = "build check demo doctor evaluate forget graph models pretrain prune publish relocate search"
    commands += " status survey ui whiten"
    assert found.stdout.split("\n")[:2] == [commands, "[]"]


def test_ctrl_c_ends_the_server_quietly_and_leaves_nothing_behind(gallery: Gallery, tmp_path: Path):
    process, address = start_server(tmp_path, "ui", "--collection", str(gallery.place), "--port", "0")
    with urlopen(f"{address}/healthz") as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=30)
    assert (process.returncode, said, complained) == (130, "", "")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_the_page_is_not_opened_to_other_computers(gallery: Gallery, host: str):
    ended = run("ui", "--collection", str(gallery.place), "--host", host)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"--host {host} would open the page to other computers" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_port_in_use_is_a_sentence_with_a_free_one(gallery: Gallery):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("ui", "--collection", str(gallery.place), "--port", str(port))
        assert ended.returncode == 1
        assert f"Port {port} is in use. Use another one: --port " in ended.stderr
        suggested = int(ended.stderr.rsplit(maxsplit=1)[1])
        assert try_port("127.0.0.1", suggested) is None
    require_free("127.0.0.1", port)


def test_the_highest_port_in_use_still_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ui.server.try_port", lambda host, port: 98 if port == 65535 or port == 0 else 99)
    with pytest.raises(PortTaken, match="--port 0"):
        require_free("127.0.0.1", 65535)


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--port", "x"], ["--no-such-flag"], ["too", "many"]])
def test_wrong_usage_is_exit_status_2(arguments: list[str]):
    ended = run("ui", *arguments)
    assert ended.returncode == 2
    assert "Usage: seer ui" in ended.stderr


def test_a_folder_without_a_collection_is_refused_before_the_server_starts(tmp_path: Path):
    ended = run("ui", "--collection", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"There is no collection in {tmp_path}" in ended.stderr


def test_what_is_no_search_engine_is_refused_before_the_server_starts(gallery: Gallery):
    done = run("ui", "--collection", str(gallery.place), "--port", "0", "--search-engine", "example.org")
    assert done.returncode == 1 and "example.org names no search engine; allowed are" in done.stderr


def test_of_several_collections_the_first_by_name_is_shown(seer_home: Path, tmp_path: Path):
    for seed, name in enumerate(("second", "first")):
        draw(tmp_path / name / "a.png", seed)
        build(tmp_path / "home" / "seer" / "collections" / name, tmp_path / name)
    process, address = start_server(tmp_path / "home", "ui", "--port", "0")
    thumbnails = [f"{address}/t/{hash_content((tmp_path / name / 'a.png').read_bytes()).hex()}.webp"
                  for name in ("first", "second")]  # fmt: skip
    with urlopen(thumbnails[0]) as response:
        assert response.status == 200
    with pytest.raises(OSError, match="404"):
        urlopen(thumbnails[1])
    process.kill()
    process.communicate()


def test_without_any_collection_the_page_starts_and_says_so(tmp_path: Path):
    process, address = start_server(tmp_path, "ui", "--port", "0")
    with urlopen(f"{address}/") as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    complained = process.communicate(timeout=30)[1]
    assert "There is no collection yet" in complained


def test_demo_with_a_folder_builds_its_collection_and_serves_it(tmp_path: Path):
    for seed in range(3):
        draw(tmp_path / "my pictures" / f"{seed}.png", seed)
    process, address = start_server(tmp_path / "home", "demo", str(tmp_path / "my pictures"), "--port", "0")
    with urlopen(f"{address}/healthz") as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(list((tmp_path / "home" / "seer" / "collections").glob("my-pictures-*/CURRENT"))) == 1


def test_demo_gathers_samples_builds_them_and_then_serves(seer_home: Path, monkeypatch: pytest.MonkeyPatch):
    served = []

    def gather(folder: Path) -> SampleCounts:
        draw(folder / "a.png", 1)
        draw(folder / "b.png", 2)
        return SampleCounts(originals={"someone": 1}, edited={"mirror": 1}, missing=())

    monkeypatch.setattr(ui.cli, "gather_samples", gather)
    monkeypatch.setattr(ui.cli, "serve", lambda *arguments, **_: served.append(arguments[:3]))
    ended = CliRunner().invoke(ui.cli.main, ["demo", "--port", "8599"], catch_exceptions=False)
    assert ended.exit_code == 0
    assert "1 photos and 1 edited copies" in ended.output
    assert "2 images can be searched" in ended.output
    assert served == [([seer_home / "collections" / "demo"], "127.0.0.1", 8599)]


def test_an_address_is_one_that_a_browser_understands():
    assert show_address("127.0.0.1", 8501) == "http://127.0.0.1:8501"
    assert show_address("::1", 80) == "http://[::1]:80"


def test_every_address_by_which_the_page_can_be_opened_is_said(capsys: pytest.CaptureFixture):
    named = list_addresses("0.0.0.0", ["pictures.lan"], 8501)
    assert named[0] == "http://pictures.lan:8501" and named[-1] == "http://127.0.0.1:8501"
    assert list_addresses("::", ["a.lan", "A.lan"], 80)[0::2] == ["http://a.lan:80", "http://[::1]:80"]
    assert list_addresses("192.168.1.7", [], 80) == ["http://192.168.1.7:80"]
    # There a name is a proxy's, which has a port of its own.
    assert list_addresses("127.0.0.1", ["pictures.lan"], 80) == ["http://127.0.0.1:80"]
    ui.cli.say_ready(named, "0.0.0.0", "a password of ours")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "The page is at http://pictures.lan:8501 (Ctrl-C ends it)"
    assert [line.split() for line in said[1 : len(named)]] == [["and", "at", address] for address in named[1:]]
