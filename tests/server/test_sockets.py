"""SERVER-55 to SERVER-57: addresses, open files, files for TLS."""

from __future__ import annotations

import resource
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from ferrum.errors import ConfigError, InvalidParameter
from ferrum.server.app import make_app
from ferrum.server.run import DrainingServer, Terms, configured
from ferrum.server.sockets import allow_many_files, bind, is_loopback, url
from ferrum.server.tls import TlsFiles
from tests.server.running import running, scripted


@pytest.mark.clause("SERVER-55")
def test_every_address_of_a_host_has_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with ExitStack() as opened:
        places = [opened.enter_context(closing(each)).getsockname() for each in bind("box", 0)]
    assert [address for address, _ in places] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in places}) == 1


@pytest.mark.clause("SERVER-55")
def test_a_port_that_is_in_use_at_one_of_the_addresses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    with closing(socket.create_server(("127.0.0.2", 0))) as taken:
        monkeypatch.setattr(socket, "getaddrinfo", two)
        with pytest.raises(ConfigError, match="Address already in use"):
            bind("box", taken.getsockname()[1])


@pytest.mark.clause("SERVER-55")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_told(host: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on http://{host}:{port}: Address already in use"):
            bind(host, port)


@pytest.mark.clause("SERVER-55")
def test_of_two_servers_that_start_at_once_the_later_one_is_told() -> None:
    with scripted() as service, closing(bind("127.0.0.1", 0)[0]) as first:
        server = DrainingServer(configured(make_app(service), Terms()), service, drain_s=1)
        # some systems know it when the address is bound
        with pytest.raises(ConfigError, match="cannot listen"), closing(bind(*first.getsockname())[0]) as later:
            first.listen()
            server.run([later])


@pytest.mark.clause("SERVER-55")
@pytest.mark.parametrize("host", ["nowhere.invalid", "999.1.1.1", "a\u0000b", "x" * 300])
def test_a_host_without_an_address_is_told(host: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        bind(host, 0)
    assert caught.value.field == "host"


@pytest.mark.clause("SERVER-55")
def test_urls_and_loopback() -> None:
    assert is_loopback("localhost") and is_loopback("127.9.9.9") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("localhost.example")
    assert url("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url("::1", 80, "https") == "https://[::1]:80"


@pytest.mark.clause("SERVER-56")
def test_as_many_files_as_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        possible = allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
        assert possible > 0 and (before[1] == resource.RLIM_INFINITY or possible <= before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.clause("SERVER-56")
def test_a_system_that_refuses_its_own_limit_is_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [256, resource.RLIM_INFINITY]  # of macOS

    def set_limits(_: int, wanted: tuple[int, int]) -> None:
        if wanted[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert allow_many_files() > 10_000
    assert limits == [10_240, resource.RLIM_INFINITY]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A certificate for 127.0.0.1 and its key, and the key behind a password."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not here")
    folder = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=x",
           "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    locked = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", "key.pem", "-out", "locked.pem"]
    for command in ([*new, "-nodes"], locked):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    yield folder


@pytest.mark.clause("SERVER-57")
def test_https(files: Path) -> None:
    tls = TlsFiles(files / "cert.pem", files / "key.pem")
    tls.check()
    trust = ssl.create_default_context(cafile=files / "cert.pem")
    with running(terms=Terms(tls=tls)) as server:
        assert httpx.get(f"https://127.0.0.1:{server.port}/health", verify=trust).json() == {"status": "ok"}


@pytest.mark.clause("SERVER-57")
@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("cert.pem", "locked.pem", "password"),
        ("nothing.pem", "key.pem", "there is no file"),
        ("key.pem", "key.pem", "no certificate"),
        ("cert.pem", "cert.pem", "no certificate"),
    ],
)
def test_files_that_cannot_be_used(files: Path, certificate: str, key: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TlsFiles(files / certificate, files / key).check()
