"""A local Apache Kafka for tests and play: Maven artifacts, KRaft, free ports.

Java 17 and Maven are all it needs. The artifacts are fetched once, into `.cache/broker/libs`.
A secured one also listens for TLS, for SASL over it, and knows a user of PLAIN and SCRAM-SHA-512.
"""

import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from deploy.broker import certificates
from deploy.broker.certificates import NoCertificates

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
LIBRARIES = HERE.parent.parent / ".cache" / "broker" / "libs"

INSTALL = "apt-get install openjdk-17-jre-headless maven"
OLDEST_JAVA = 17
FETCH_SECONDS = 300
START_SECONDS = 60
STOP_SECONDS = 15
ERROR_LINES = 5

USER = "reader"
PASSWORD = "sesame-0f-one-test-brok3r"  # noqa: S105 - of a broker that listens on this machine only


class BrokerUnavailable(Exception):
    """Raised when no broker can be had here: no Java, no Maven, or no artifacts."""


class BrokerFailed(Exception):
    """Raised when a broker can be had and does not come up."""


class Broker:
    """One Kafka process with its data in `directory`; ports stay the same over restarts."""

    def __init__(self, directory: Path, port: int = 0, *, is_secured: bool = False) -> None:
        self._directory = directory
        ports = _free_ports(port, 5)
        port, sasl_port, controller_port, ssl_port, sasl_ssl_port = ports
        self.bootstrap = f"127.0.0.1:{port}"
        self.sasl_bootstrap = f"127.0.0.1:{sasl_port}"
        self.ssl_bootstrap = f"127.0.0.1:{ssl_port}" if is_secured else None
        self.sasl_ssl_bootstrap = f"127.0.0.1:{sasl_ssl_port}" if is_secured else None
        self.ca_file = directory / "ca.pem" if is_secured else None
        self._keystore = directory / "broker.p12"
        self._settings = directory / "kraft.properties"
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        templates = ["kraft.properties", *(["secure.properties"] if is_secured else [])]
        template = "\n".join((HERE / name).read_text(encoding="utf-8") for name in templates)
        filled = string.Template(template).substitute(
            directory=directory / "data",
            port=port,
            sasl_port=sasl_port,
            controller_port=controller_port,
            ssl_port=ssl_port,
            sasl_ssl_port=sasl_ssl_port,
            keystore=self._keystore,
            keystore_password=certificates.PASSWORD,
            user=USER,
            password=PASSWORD,
        )
        self._settings.write_text(filled, encoding="utf-8")

    def start(self) -> None:
        """Start on what `directory` holds, and block until the broker accepts connections.

        Raises `BrokerUnavailable` or `BrokerFailed`.
        """
        java = _java(libraries())
        if not (self._directory / "data").exists():
            self._format(java)
        command = [*java, "kafka.Kafka", str(self._settings)]
        with self._log.open("ab") as log:
            # A session of its own: a Ctrl-C in the terminal reaches only us, and we stop it.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._directory, start_new_session=True
            )
        self._wait_until_accepting()

    def stop(self) -> None:
        """End it cleanly. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL; `start` goes on with the same data. Idempotent."""
        self._end(signal.SIGKILL)

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _format(self, java: list[str]) -> None:
        tool = [*java, "kafka.tools.StorageTool", "format"]
        # Any 22 characters of base64 are a cluster's id.
        named = [*tool, "-t", "livevec-local-broker-A", "-c", str(self._settings)]
        if self.ca_file is not None:
            self._make_certificates(self.ca_file)
            named += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(named, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = f"expected StorageTool to format a log, found: {_last_lines(done.stderr)}"
            raise BrokerFailed(msg)

    def _make_certificates(self, ca_file: Path) -> None:
        try:
            certificates.make(self._keystore, ca_file)
        except NoCertificates as error:
            raise BrokerUnavailable(str(error)) from error

    def _wait_until_accepting(self) -> None:
        host, port = self.bootstrap.split(":")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running():
                break
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                return
            time.sleep(0.05)
        self.kill()
        found = _last_lines(self._log.read_text(encoding="utf-8", errors="replace"))
        msg = (
            f"expected a broker to accept at {self.bootstrap} in {START_SECONDS} s, found: {found}"
        )
        raise BrokerFailed(msg)


def libraries() -> Path:
    """Return the directory of Kafka's jars; fetch them first where they are not there yet.

    Raises `BrokerUnavailable`.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            msg = f"a local Kafka needs Java {OLDEST_JAVA} and Maven, found no {program}: {INSTALL}"
            raise BrokerUnavailable(msg)
    if not _is_current(LIBRARIES):
        _fetch(LIBRARIES)
    return LIBRARIES


def version() -> str:
    """Return the version of Kafka that the artifacts hold."""
    found = re.search(r"kafka_2\.13</artifactId>\s*<version>(.*?)<", POM.read_text("utf-8"))
    assert found is not None
    return found[1]


def _is_current(directory: Path) -> bool:
    stamp = directory / POM.name
    return stamp.exists() and stamp.read_bytes() == POM.read_bytes()


def _fetch(directory: Path) -> None:
    """Fill `directory` at once or not at all, so that an interrupted fetch leaves no half of it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory.parent) as beside:
        whole = Path(beside) / "libs"
        print(f"fetching Apache Kafka {version()} with Maven (43 MB) ...", file=sys.stderr)
        _maven(whole)
        shutil.copy(POM, whole / POM.name)
        with suppress(FileNotFoundError):
            directory.rename(Path(beside) / "old")
        try:
            whole.rename(directory)
        except OSError:
            # Another run was faster.
            if not _is_current(directory):
                raise


def _maven(directory: Path) -> None:
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    command = ["mvn", "-q", "-B", "-f", str(POM), *goal, f"-DoutputDirectory={directory}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        msg = f"expected Maven to fetch Kafka in {FETCH_SECONDS} s, found it still at work"
        raise BrokerUnavailable(msg) from error
    if done.returncode != 0:
        found = _last_lines(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))
        msg = f"expected Maven to resolve {POM}, found: {found}"
        raise BrokerUnavailable(msg)


def _java(libs: Path) -> list[str]:
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    if found is None or int(found[1]) < OLDEST_JAVA:
        line = _last_lines(done.stderr, 1)
        msg = f"a local Kafka needs Java {OLDEST_JAVA}, found {line!r}: {INSTALL}"
        raise BrokerUnavailable(msg)
    return [
        "java",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{libs}/*",
    ]


def _free_ports(port: int, count: int) -> list[int]:
    """Return `port`, or a free one where it is 0, and more free ones, `count` in all."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one, wanted in zip(sockets, [port] + [0] * (count - 1), strict=True):
            try:
                one.bind(("127.0.0.1", wanted))
            except OSError as error:
                msg = f"expected port {wanted} to be free, found: {error.strerror}"
                raise BrokerFailed(msg) from error
        return [one.getsockname()[1] for one in sockets]


def _last_lines(text: str, count: int = ERROR_LINES) -> str:
    return " / ".join(text.strip().splitlines()[-count:]) or "nothing"
