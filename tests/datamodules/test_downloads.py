"""Downloads, from a server on this machine alone that behaves or does not: a good file or none."""

import gzip
import hashlib
import os
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision
from helpers import ready
from processes import fork

from datamodules import MNIST, CryptoPunks, DataError, FreyFace, downloads

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of a folder in the way that the server's `behaviour` says."""

    def do_GET(self):
        behaviour = self.server.behaviour
        if behaviour == "refuses":
            self.send_error(503)
            return
        content = (self.server.folder / self.path.rpartition("/")[2]).read_bytes()
        part = content[: len(content) // 2]
        if behaviour == "says nothing":
            self.server.over.wait(60)
            return
        self.send_response(200)
        if behaviour != "tells no length":
            self.send_header("Content-Length", str(len(part if behaviour == "truncates" else content)))
        self.end_headers()
        if behaviour in ("truncates", "hangs up"):
            self.wfile.write(part)
        elif behaviour == "falls silent":
            self.wfile.write(part)
            self.wfile.flush()
            self.server.over.wait(60)
        elif behaviour == "alters":
            self.wfile.write(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        elif behaviour == "is slow":
            for place in range(0, len(content), 1 + len(content) // 10):
                self.wfile.write(content[place : place + 1 + len(content) // 10])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tiny_punks, tiny_faces, tiny_mnist, tmp_path, monkeypatch):
    """A server of the tiny punks, faces and MNIST, which are nowhere else; data goes to new/."""
    published = tmp_path / "published"
    published.mkdir()
    for name in ("punks.png", "frey_rawface.mat"):
        (tmp_path / name).rename(published / name)
    resources = []
    for name in MNIST.sha256:
        archive = gzip.compress((tiny_mnist / "MNIST" / "raw" / name).read_bytes())
        (published / f"{name}.gz").write_bytes(archive)
        resources.append((f"{name}.gz", hashlib.md5(archive).hexdigest()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "new"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.folder, server.behaviour, server.over = published, "behaves", threading.Event()
        address = f"http://127.0.0.1:{server.server_port}/published/"
        monkeypatch.setattr(CryptoPunks, "url", f"{address}punks.png")
        monkeypatch.setattr(FreyFace, "url", f"{address}frey_rawface.mat")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def files(tmp_path):
    return sorted(path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*"))


WHOLE = sorted(["MNIST", "MNIST/raw", *(f"MNIST/raw/{name}" for name in MNIST.sha256), "punks.png"])


@pytest.mark.parametrize("behaviour", ["behaves", "is slow", "tells no length"])
def test_what_is_missing_is_fetched_and_verified(server, tmp_path, behaviour):
    server.behaviour = behaviour
    for data, images in ((CryptoPunks(), 12), (FreyFace(), 12), (MNIST(val_size=20), 40)):
        data.prepare_data()
        data.setup()
        assert len(data.splits["train"]) == images
    assert files(tmp_path) == sorted([*WHOLE, "frey_rawface.mat"])


@pytest.mark.parametrize("behaviour", ["refuses", "says nothing", "truncates", "hangs up", "falls silent", "alters"])
@pytest.mark.parametrize("kind", [CryptoPunks, FreyFace, MNIST])
def test_a_server_that_misbehaves(server, tmp_path, monkeypatch, behaviour, kind):
    monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT", 0.5)
    server.behaviour = behaviour
    with pytest.raises(DataError, match=r"could not be downloaded from .* \(.+\)\.\nPut .* into .*new"):
        kind().prepare_data()
    assert not (tmp_path / "new").exists()
    server.behaviour = "behaves"
    kind().prepare_data()  # nothing stands in the way of the next try


def test_a_download_that_is_killed(server, tmp_path):
    """What it leaves behind has a temporary name: the next download does not take it for the file."""
    server.behaviour = "falls silent"
    process = start()
    while not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]:
        time.sleep(0.05)
    process.kill()
    process.join()
    assert not (tmp_path / "new" / "punks.png").exists()
    server.behaviour = "behaves"
    CryptoPunks().prepare_data()


def test_two_processes_at_once(server, tmp_path):
    server.behaviour = "is slow"
    processes = [start() for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert files(tmp_path) == WHOLE


def test_a_missing_file_that_cannot_be_fetched(tmp_path):
    with pytest.raises(
        DataError,
        match=r"(?s)MNIST could not be downloaded.*Put train-images.* into data/MNIST/raw\. The data set Digits",
    ):
        MNIST().prepare_data()
    with pytest.raises(
        DataError, match=r"(?s)punks.png could not be downloaded.*Put punks.png into data\. The data set Digits"
    ):
        CryptoPunks().prepare_data()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("change", [None, "truncated", "altered"])
def test_packed_files_of_mnist_are_read_where_they_are(tiny_mnist, change):
    """Without a word to a server, or a file beside them: their folder may be read-only."""
    expected = ready(MNIST(val_size=20, binarize="none")).splits["test"]
    for path in (tiny_mnist / "MNIST" / "raw").iterdir():
        content = path.read_bytes()
        path.unlink()
        changed = content[:-1] + bytes([content[-1] ^ 1]) if change == "altered" else content
        packed = gzip.compress(changed)
        path.with_name(f"{path.name}.gz").write_bytes(packed[:-20] if change == "truncated" else packed)
    data = MNIST(val_size=20, binarize="none")
    if change:
        with pytest.raises(DataError, match=r"-ubyte\.gz .*(cannot be unpacked|is truncated or altered)"):
            data.prepare_data()
    else:
        found = ready(data).splits["test"]
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert len([*(tiny_mnist / "MNIST" / "raw").iterdir()]) == 4


@pytest.mark.parametrize("change", ["truncated", "altered"])
def test_a_file_that_is_not_the_published_one(tiny_mnist, tiny_punks, change):
    for data, path in (
        (MNIST(), tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte"),
        (CryptoPunks(), tiny_punks / "punks.png"),
    ):
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content[:-10] if change == "truncated" else content)
        with pytest.raises(DataError, match=r"(?s)is truncated or altered.*Expected SHA-256 .*found .*Delete it"):
            data.prepare_data()


def start():
    """Another process that downloads the punks, then MNIST."""
    source = torchvision.datasets.MNIST
    args = (CryptoPunks.url, CryptoPunks.sha256, CryptoPunks.grid, MNIST.sha256, source.mirrors, source.resources)
    return fork(fetch, *args, os.environ["VAE_DATA_DIR"])


def fetch(url, sha256, grid, sha256s, mirrors, resources, data_dir):
    os.environ["no_proxy"] = "127.0.0.1"
    CryptoPunks.url, CryptoPunks.sha256, CryptoPunks.grid, MNIST.sha256 = url, sha256, grid, sha256s
    torchvision.datasets.MNIST.mirrors, torchvision.datasets.MNIST.resources = mirrors, resources
    CryptoPunks(data_dir=data_dir).prepare_data()
    MNIST(data_dir=data_dir).prepare_data()
