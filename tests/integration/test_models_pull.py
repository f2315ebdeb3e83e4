"""Pulling models: a server that cuts, stalls and lies; kills, full disks."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import (
    Cancelled,
    Conflict,
    DownloadFailed,
    HashMismatch,
    OutpostError,
    StorageFull,
    UnknownModel,
)
from agent.updates.catalog import Catalog, ModelStore
from agent.updates.download import Limits
from agent.updates.part import Progress
from tests.simulators.disk import small_disk
from tests.simulators.faulty_http import Fault, FaultyServer
from tests.simulators.models import DATA, FAST, Site, built, offered, sha
from tests.simulators.waiting import until

pytestmark = pytest.mark.usefixtures("no_proxies")
ROOT = Path(__file__).resolve().parents[2]
# ---------------------------------------------------------------- a good line


def test_pull_list_show_verify_remove(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    shown: list[Progress] = []
    pulled = site.store.pull("toy", progress=shown.append, limits=FAST)
    assert pulled.changed
    assert pulled.convert is None
    assert [model.name for model in site.store.list()] == ["toy"]
    model = site.store.get("toy")
    assert (model.folder, model.context, model.license, model.reference) == (pulled.folder, 512, "mit", False)
    site.assert_whole()
    assert shown[-1].done == shown[-1].total == len(DATA)
    assert not site.store.pull("toy", limits=FAST).changed
    assert len(server.seen) == 1  # what is there is not fetched again
    site.store.remove("toy")
    assert site.store.list() == ()
    assert not list(site.models.rglob("*.gguf"))
    with pytest.raises(UnknownModel, match="outpost models pull toy"):
        site.store.get("toy")
    with pytest.raises(UnknownModel, match="'toy'"):
        site.store.pull("tooy", limits=FAST)
    with pytest.raises(UnknownModel):
        site.store.remove("../../etc")


def test_several_files_and_a_damaged_one_is_mended_alone(site: Site, server: FaultyServer) -> None:
    a, b = DATA[:400_000], DATA[400_000:600_000]
    site.offer([("a.bin", server.put("x/a.bin", a), a), ("sub/b.json", server.put("x/b.json", b), b)])
    folder = site.store.pull("toy", limits=FAST).folder
    with (folder / "sub" / "b.json").open("r+b") as file:
        file.write(b"\0" * 10)
    assert [problem.split()[0] for problem in site.store.verify("toy")] == ["sub/b.json"]
    (folder / "sub" / "b.json").unlink()
    assert site.store.verify("toy") == ("sub/b.json is missing",)
    assert site.store.pull("toy", limits=FAST).changed
    assert site.store.verify("toy") == ()
    assert len(server.ranges("x/a.bin")) == 1
    assert len(server.ranges("x/b.json")) == 2


def test_a_first_download_confirms_an_unchecked_hash(site: Site, server: FaultyServer) -> None:
    offered(site, server, extra="checked = false")
    model = site.store.catalog.get("toy")
    assert not site.store.confirmed(model)
    server.fail("model.gguf", Fault(body=b"x" * len(DATA)), Fault(body=b"x" * len(DATA)))
    with pytest.raises(HashMismatch):
        site.store.pull("toy", limits=FAST)
    assert not site.store.confirmed(model)
    site.store.pull("toy", limits=FAST)
    assert site.store.confirmed(model)


# ---------------------------------------------------------------- bad lines and lying servers


@pytest.mark.parametrize("sizes", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize(
    "faults",
    [
        [Fault(send=600_000), Fault(send=300_000)],
        [Fault(send=0), Fault(send=700_000, chunked=True)],
        [Fault(send=500_000, gate=threading.Event())],
        [Fault(status=429, headers={"Retry-After": "0"}), Fault(status=500), Fault(status=503)][:2],
        [Fault(length=len(DATA) + 5000)],
        [Fault(length=len(DATA) // 3)],
        [Fault(body=DATA[:-1] + b"\0")],
        [Fault(chunked=True)],
        [Fault(send=600_000), Fault(ignore_range=True)],
        [Fault(send=600_000), Fault(status=416, headers={"Content-Range": "bytes */5"})],
        [Fault(send=600_000), Fault(headers={"Content-Range": "bytes 5-9/10"})],
        [Fault(body=b"")],
    ],
    ids=["cut twice", "cut chunked", "stalled", "busy", "length long", "length short", "wrong byte", "chunked",
         "range ignored", "416", "other range", "empty"],
)  # fmt: skip
def test_a_pull_survives(site: Site, server: FaultyServer, faults: list[Fault], sizes: bool) -> None:
    offered(site, server, sizes=sizes)
    server.fail("model.gguf", *faults)
    site.store.pull("toy", limits=FAST)
    site.assert_whole()


def test_a_cut_line_goes_on_where_it_stopped(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", *[Fault(send=100_000)] * 12)  # far more cuts than attempts: each one brings something
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    asked = server.ranges("model.gguf")
    assert asked[0] is None
    assert len(asked) == 13
    starts = [int(range.removeprefix("bytes=").removesuffix("-")) for range in asked[1:] if range]
    assert starts == sorted(starts)
    assert server.bytes_sent["/model.gguf"] == len(DATA)  # no byte came twice
    assert server.seen[1].if_range


def test_a_new_file_on_the_server_starts_over(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    old = b"old" * 400_000
    server.fail("model.gguf", Fault(body=old, send=200_000))
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert server.ranges("model.gguf")[1:] == ["bytes=200000-"]  # If-Range turned it into a whole answer


def test_a_trickle_counts_as_a_stall(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(drip=True))  # never silent for as long as the read timeout
    started = time.monotonic()
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert time.monotonic() - started < 10
    first, second = server.ranges("model.gguf")
    assert first is None
    assert second is not None
    assert 0 < int(second[6:-1]) < 1000


def test_wrong_bytes_name_both_hashes_and_leave_nothing(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    wrong = b"w" * len(DATA)
    server.fail("model.gguf", Fault(body=wrong), Fault(body=wrong))
    with pytest.raises(HashMismatch) as caught:
        site.store.pull("toy", limits=FAST)
    assert sha(DATA) in str(caught.value)
    assert sha(wrong) in str(caught.value)
    assert len(server.seen) == 2  # one clean retry, no more
    assert site.store.list() == ()
    assert not list(site.models.rglob("*.part"))


def test_an_endless_body_is_not_stored(site: Site, server: FaultyServer) -> None:
    small = DATA[:1000]
    offered(site, server, small)
    server.fail("model.gguf", *[Fault(body=small[:-1] + b"\0" + DATA, chunked=True)] * 2)
    with pytest.raises(HashMismatch, match="its 1000 bytes"):
        site.store.pull("toy", limits=FAST)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(site: Site, server: FaultyServer, status: int) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(status=status))
    with pytest.raises(DownloadFailed, match=f"HTTP {status}"):
        site.store.pull("toy", limits=FAST)
    assert len(server.seen) == 1


def test_a_server_that_stays_down_ends_the_pull_and_the_part_is_kept(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(send=600_000), *[Fault(status=503)] * 3)
    with pytest.raises(DownloadFailed, match=r"HTTP 503 \(3 attempts\).*600000 bytes are kept"):
        site.store.pull("toy", limits=FAST)
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert server.ranges("model.gguf")[-1] == "bytes=600000-"


def test_retry_after_is_kept_and_bounded(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    site.store.pull("toy", limits=FAST)
    assert time.monotonic() - started >= 1
    site.store.remove("toy")
    server.fail("model.gguf", Fault(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(DownloadFailed, match="3600 s"):
        site.store.pull("toy", limits=FAST)


def test_redirects_are_followed_and_limited(site: Site, server: FaultyServer) -> None:
    site.offer([("model.gguf", f"{server.url}/start", DATA)])
    server.put("cdn/model", DATA)
    server.fail("start", Fault(status=302, headers={"Location": "/next"}))
    server.fail("next", Fault(status=307, headers={"Location": f"{server.url}/cdn/model"}))
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    site.store.remove("toy")
    server.fail("start", *[Fault(status=302, headers={"Location": "/start"})] * 20)
    with pytest.raises(DownloadFailed, match="5 redirects"):
        site.store.pull("toy", limits=FAST)
    for target, why in (("file:///etc/passwd", "neither http"), ("http://[broken", "no address")):
        server.heal()
        server.fail("start", Fault(status=302, headers={"Location": target}))
        with pytest.raises(DownloadFailed, match=why):
            site.store.pull("toy", limits=FAST)


def test_https_never_leads_to_http(
    site: Site, server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate; install it")
    pem = tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "c"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "c").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    server.put("model.gguf", DATA)
    with FaultyServer(pem) as secure:
        site.offer([("model.gguf", secure.put("model.gguf", DATA), DATA)])
        secure.fail("model.gguf", Fault(status=302, headers={"Location": f"{server.url}/model.gguf"}))
        with pytest.raises(DownloadFailed, match="from https to http:"):
            site.store.pull("toy", limits=FAST)
        assert server.seen == []
        site.store.pull("toy", limits=FAST)
    site.assert_whole()


def test_an_unreachable_host(site: Site) -> None:
    with FaultyServer() as gone:
        offered(site, gone)
    with pytest.raises(DownloadFailed, match=r"ConnectError.*--from"):
        site.store.pull("toy", limits=FAST)


# ---------------------------------------------------------------- kills, cancels, two at once, full disks

PULL = """
import sys
from pathlib import Path
from agent.updates.catalog import Catalog, ModelStore
store = ModelStore(Path(sys.argv[1]), catalog=Catalog.load(Path(sys.argv[2])))
store.pull("toy")
"""
TOGGLE = """
import sys
from pathlib import Path
from agent.updates.catalog import Catalog, ModelStore
store = ModelStore(Path(sys.argv[1]), catalog=Catalog(()))
print("ready", flush=True)
while True:
    for folder in sys.argv[2:]:
        store.pull("toy", folder)
"""


def child(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE)


def wait_for_part(site: Site, size: int) -> None:
    until(lambda: site.part().exists() and site.part().stat().st_size >= size, f"a part of {size} bytes")


def test_a_killed_pull_goes_on(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(send=800_000, gate=threading.Event()))
    process = child(PULL, site.models, site.catalog)
    try:
        wait_for_part(site, 800_000)
        with pytest.raises(Conflict, match="another process"):
            site.store.pull("toy", limits=FAST)
    finally:
        process.kill()
        process.communicate()
    assert site.store.list() == ()
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert server.ranges("model.gguf")[-1] == "bytes=800000-"


def test_a_part_with_damage_is_thrown_away(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    site.part().parent.mkdir(parents=True)
    site.part().write_bytes(b"\0" * 700_000)  # as a power cut may leave it
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert server.ranges("model.gguf") == ["bytes=700000-", None]


def test_a_cancelled_pull_keeps_its_part(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    server.fail("model.gguf", Fault(send=300_000))
    cancel = threading.Event()

    def stop() -> None:
        wait_for_part(site, 300_000)
        cancel.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Cancelled):  # in the middle of a long wait before the next attempt
        site.store.pull("toy", cancel=cancel, limits=Limits(backoff_s=30, margin=0))
    stopper.join()
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    assert server.ranges("model.gguf")[-1] == "bytes=300000-"


def test_two_pulls_at_once(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    gate = threading.Event()
    server.fail("model.gguf", Fault(send=100, gate=gate))
    slow = Limits(margin=0)
    first = threading.Thread(target=lambda: site.store.pull("toy", limits=slow))
    first.start()
    assert server.wait_sent("model.gguf", 100)
    with pytest.raises(Conflict, match="'toy'"):
        site.store.pull("toy", limits=FAST)
    gate.set()
    first.join(10)
    site.assert_whole()


def test_a_replaced_model_is_always_the_old_or_the_new(site: Site, tmp_path: Path) -> None:
    versions = [DATA[:200_000], DATA[200_000:450_000]]
    folders = [built(tmp_path / f"v{number}", data) for number, data in enumerate(versions)]
    store = ModelStore(site.models, catalog=Catalog(()))
    store.pull("toy", str(folders[0]))
    chance = random.Random(7)
    for _ in range(6):
        process = child(TOGGLE, site.models, *folders)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            moment = time.monotonic() + chance.uniform(0.02, 0.25)
            while time.monotonic() < moment:
                assert len(store.get("toy").files) == 2  # readable at every moment
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert store.verify("toy") == ()
        assert store.get("toy").entry_path.read_bytes() in versions
    store.pull("toy", str(folders[1]))
    store.pull("toy", str(folders[0]))
    left = [path for path in (site.models / ".versions").iterdir() if not path.is_symlink()]
    assert len(left) == 1  # what the kills left behind is swept


@pytest.fixture
def megabyte(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def test_a_full_disk_is_seen_before(site: Site, server: FaultyServer, megabyte: Path) -> None:
    offered(site, server)
    store = ModelStore(megabyte / "models", catalog=Catalog.load(site.catalog))
    with pytest.raises(StorageFull, match=r"1,500,000 and a margin of 0 are needed"):
        store.pull("toy", limits=FAST)
    assert server.seen == []
    offered(site, server, sizes=False)
    store = ModelStore(megabyte / "models", catalog=Catalog.load(site.catalog))
    with pytest.raises(StorageFull, match=r"bytes free"):
        store.pull("toy", limits=FAST)


def test_a_disk_that_fills_on_the_way(site: Site, server: FaultyServer, megabyte: Path) -> None:
    offered(site, server, sizes=False)
    server.fail("model.gguf", Fault(chunked=True))  # nobody says how much comes
    store = ModelStore(megabyte / "models", catalog=Catalog.load(site.catalog))
    ballast = megabyte / "ballast"
    ballast.write_bytes(b"\0" * 300_000)
    with pytest.raises(StorageFull):
        store.pull("toy", limits=FAST)
    assert store.list() == ()
    with contextlib.suppress(OutpostError):
        store.remove("toy")
    small = DATA[:300_000]
    offered(site, server, small, sizes=False)
    store = ModelStore(megabyte / "models", catalog=Catalog.load(site.catalog))
    store.pull("toy", limits=FAST)  # the abandoned part of the other version makes room
    assert store.get("toy").entry_path.read_bytes() == small
