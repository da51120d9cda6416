# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust import fetch as fetching
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.fetch import (
    FetchError,
    NoAnswer,
    check_url,
    fetch,
    once,
    shown,
)
from lab_web import Web

TOKEN = {"Authorization": "Bearer s3cret"}


def test_an_answer_is_handed_over_whole(web: Web) -> None:
    url = web.says("/alice.keys", "ssh-ed25519 AAAA\n", headers={"ETag": "x"})
    answer = fetch(url, {"Accept": "text/plain"}, 5)
    assert (answer.status, answer.body, answer.headers["etag"], answer.url) == (200, b"ssh-ed25519 AAAA\n", "x", url)
    ((_path, headers),) = web.asked
    assert (headers["User-Agent"], headers["Accept"]) == ("gpuops.fleet", "text/plain")


@pytest.mark.parametrize("status", [204, 304, 404, 429, 500])
def test_a_status_is_an_answer(web: Web, status: int) -> None:
    assert fetch(web.says("/", status=status, headers={"Retry-After": "7"}), {}, 5).headers["retry-after"] == "7"


@pytest.mark.parametrize("wait", [{"wait": 30}, {"drip": 0.2}], ids=["silent", "slow-drip"])
def test_the_time_is_for_the_whole_answer(web: Web, wait: dict[str, float]) -> None:
    url = web.says("/", "x" * 1000, **wait)
    begin = time.monotonic()
    with pytest.raises(NoAnswer, match=r"no complete answer within 0\.5 s"):
        fetch(url, {}, 0.5)
    assert time.monotonic() - begin < 10


def test_an_answer_that_ends_too_early_is_none(web: Web) -> None:
    with pytest.raises(FetchError, match="truncated: 100 bytes of the body are missing"):
        fetch(web.says("/", "half", missing=100, headers={"Connection": "close"}), {}, 5)


def test_a_huge_answer_is_refused(web: Web) -> None:
    assert len(fetch(web.says("/", b"x" * (1 << 20)), {}, 5).body) == 1 << 20
    with pytest.raises(FetchError, match="more than 1 MB"):
        fetch(web.says("/", b"x" * ((1 << 20) + 1)), {}, 5)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match="Connection refused"):
            fetch(f"http://127.0.0.1:{free.getsockname()[1]}/", {}, 5)


def test_what_is_no_web_server_is_an_error_without_control_characters(web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.settimeout(5)

        def greet() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-\x1b[31mx\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(FetchError, match="BadStatusLine SSH-2.0-") as error:
            fetch(url, {}, 5)
    assert str(error.value).isprintable()


def test_a_host_that_cannot_be_a_name_is_an_error() -> None:
    with pytest.raises(FetchError, match="not a name of a server"):
        fetch(f"https://{'a' * 70}.example/", {}, 5)


def test_redirects_are_followed_on_the_same_server_also_with_a_token(web: Web) -> None:
    web.says("/new", "moved")
    url = web.says("/old", status=301, headers={"Location": "/new"})
    assert fetch(url, TOKEN, 5).body == b"moved"
    assert [headers["Authorization"] for _path, headers in web.asked] == ["Bearer s3cret"] * 2


def test_a_redirect_never_takes_the_token_to_another_server(web: Web) -> None:
    other = Web()
    try:
        target = other.says("/", "gotcha")
        url = web.says("/", status=302, headers={"Location": f"{target}?q=secret"})
        with pytest.raises(FetchError, match="another server, which must not get the token") as error:
            fetch(url, TOKEN, 5)
        assert not other.asked
        assert "secret" not in str(error.value)
        assert fetch(url, {}, 5).status == 404  # without a token it may
        assert "Authorization" not in other.asked[0][1]
    finally:
        other.stop()


def test_redirects_end(web: Web) -> None:
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch(web.says("/", status=302, headers={"Location": "/"}), {}, 5)
    assert len(web.asked) == 5


@pytest.mark.parametrize("target", ["http://example.org/keys", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_anything_but_https_is_refused(web: Web, target: str) -> None:
    with pytest.raises(FetchError, match="a redirect that is not followed"):
        fetch(web.says("/", status=302, headers={"Location": target}), {}, 5)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Web, Path]]:
    """A server with a certificate of its own, and the file that makes it trusted."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lab"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetching._opener.cache_clear()
    server = Web(context)
    yield server, certificate
    server.stop()
    fetching._opener.cache_clear()


def test_a_certificate_of_nobody_is_refused(secure: tuple[Web, Path]) -> None:
    with pytest.raises(FetchError, match="TLS: self-signed certificate"):
        fetch(secure[0].says("/", "x"), {}, 5)


def test_https_works_and_is_never_left(secure: tuple[Web, Path], web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    server, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(server.says("/", "x"), {}, 5).body == b"x"
    with pytest.raises(FetchError, match="is not https"):
        fetch(server.says("/", status=302, headers={"Location": web.says("/", "x")}), {}, 5)
    assert not web.asked


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://github.com/alice.keys", ""),
        ("https://[2001:db8::1]:8443/alice.keys", ""),
        ("http://localhost:8080/alice.keys", ""),
        ("http://[::1]/alice.keys", ""),
        ("http://github.com/alice.keys", "is not https"),
        ("http://127.0.0.1.example.org/", "is not https"),
        ("github.com/alice.keys", "begins with https://"),
        ("https:///alice.keys", "begins with https://"),
        ("https://github.com:x/", "not a URL"),
        ("https://github.com/\r\nHost: evil", "blanks"),
        ("https://token@github.com/", "credentials"),
    ],
)
def test_only_https_may_be_asked_but_for_this_machine(url: str, told: str) -> None:
    assert (told in check_url(url)) if told else check_url(url) == ""


def test_what_may_be_a_secret_in_a_url_is_not_shown() -> None:
    assert shown("https://git.example/alice.keys?private_token=s3cret#x") == "https://git.example/alice.keys"


def test_a_page_is_fetched_once_for_a_whole_run(web: Web, tmp_path: Path) -> None:
    good, bad = web.says("/good", b"\xff\0", headers={"ETag": "x"}), web.says("/bad", wait=30)
    fetches = [
        once(lambda url, headers: fetch(url, headers, 0.3 if url == bad else 10), str(tmp_path))
        for _process in range(2)
    ]
    assert fetches[0](good, {}) == fetches[1](good, {})
    for each in fetches:
        with pytest.raises(NoAnswer, match="no complete answer"):
            each(bad, {})
    assert sorted(web.paths()) == ["/bad", "/good"]
    # The answer to somebody with a token is not for somebody without one.
    assert fetches[1](good, TOKEN).body == b"\xff\0"
    assert web.paths().count("/good") == 2
    assert "s3cret" not in "".join(str(path) + path.read_text() for path in tmp_path.iterdir())
