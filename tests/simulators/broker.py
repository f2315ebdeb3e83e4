"""A real mosquitto on a free port: TLS with client certificates, an ACL, TCP_NODELAY; tests kill and start it again.

A client's certificate names its user (the CN), and the ACL is by user, as in docs/mqtt.md; or passwords do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from agent.config import Mqtt
from tests.simulators.waiting import until

START_S = 15.0
DEVICE_ACL = """
pattern write outpost/%u/status
pattern write outpost/%u/events
pattern write outpost/%u/handoff
pattern write outpost/%u/escalate/request
pattern write outpost/%u/escalate/parts/+
pattern read outpost/%u/escalate/response
pattern read outpost/%u/ask
pattern write outpost/%u/ask/response/#
"""
GATEWAY_ACL = """
user gateway
topic read outpost/+/+/escalate/request
topic read outpost/+/+/escalate/parts/+
topic write outpost/+/+/escalate/response
topic write outpost-gateway/+/status
"""
OPERATOR_ACL = """
user operator
topic readwrite #
"""
ACL = GATEWAY_ACL + OPERATOR_ACL + DEVICE_ACL


def mosquitto() -> str:
    """The broker's program, or a skip."""
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    return found


def _password_file(folder: Path, passwords: Mapping[str, str]) -> Path:
    file = folder / "passwords"
    file.touch(0o600)
    for user, password in passwords.items():
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, password], check=True, capture_output=True)
    return file


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests; ``client`` makes certificates as they are asked for."""

    folder: Path
    signs: trustme.CA

    @staticmethod
    def make(folder: Path) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        authority = Authority(folder, trustme.CA())
        authority.signs.cert_pem.write_to_path(authority.ca)
        authority._write("server", authority.signs.issue_cert("localhost", "127.0.0.1"))
        return authority

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def client(self, user: str) -> tuple[Path, Path]:
        """Certificate and key of a user."""
        cert, key = self.pair(user)
        if not cert.exists():
            self._write(user, self.signs.issue_cert("client.test", common_name=user))
        return cert, key

    def pair(self, user: str) -> tuple[Path, Path]:
        stem = user.replace("/", "_")
        return self.folder / f"{stem}.pem", self.folder / f"{stem}.key"

    def _write(self, user: str, issued: trustme.LeafCert) -> None:
        cert, key = self.pair(user)
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)


@dataclass
class Broker:
    """A mosquitto that can be killed and started again on the same port."""

    folder: Path
    port: int
    authority: Authority
    config: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = field(default=0)

    def settings(self, user: str, **further: object) -> Mqtt:
        """How a client with the certificate of ``user`` connects."""
        cert, key = self.authority.client(user)
        return Mqtt.model_validate(
            {"host": "localhost", "port": self.port, "ca_file": self.authority.ca, "client_cert": cert,
             "client_key": key, **further}
        )  # fmt: skip

    def toml(self, user: str) -> str:
        """The same as the section of a configuration file."""
        cert, key = self.authority.client(user)
        return (
            f'[mqtt]\nhost = "localhost"\nport = {self.port}\nca_file = "{self.authority.ca}"\n'
            f'client_cert = "{cert}"\nclient_key = "{key}"\n'
        )

    def start(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([mosquitto(), "-c", str(self.config)], stdout=log, stderr=log)
        self.starts += 1
        process = self.process

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            assert process.poll() is None, self.log()
            return False

        until(listens, lambda: f"mosquitto listens: {self.log()}", START_S)

    def kill(self) -> None:
        """SIGKILL: nothing is said to any client."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it without closing a connection, as a line does that goes silent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(encoding="utf-8", errors="replace")[-3000:]


@contextlib.contextmanager
def running_broker(
    folder: Path,
    authority: Authority,
    *,
    acl: str = ACL,
    further: str = "",
    passwords: Mapping[str, str] | None = None,
) -> Iterator[Broker]:
    """A broker with this ACL and further lines of configuration; with ``passwords`` (by user) clients need no
    certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = authority.pair("server")
    (folder / "acl").write_text(acl, encoding="ascii")
    (folder / "acl").chmod(0o600)
    port = free_port()
    config = folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    known = "require_certificate true\nuse_identity_as_username true\n"
    if passwords is not None:
        known = f"password_file {_password_file(folder, passwords)}\n"
    config.write_text(
        f"{user}per_listener_settings false\npersistence false\nset_tcp_nodelay true\nallow_anonymous false\n"
        f"listener {port} 127.0.0.1\ncafile {authority.ca}\ncertfile {cert}\nkeyfile {key}\n"
        f"{known}acl_file {folder / 'acl'}\n"
        f"log_type error\nlog_type warning\nlog_type notice\n{further}",
        encoding="ascii",
    )
    broker = Broker(folder, port, authority, config)
    broker.start()
    try:
        yield broker
    finally:
        if broker.process is not None and broker.process.poll() is None:
            broker.go_on()
            broker.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
