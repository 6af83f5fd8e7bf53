"""A CA that nobody else knows, and a broker's key that it has signed, made with Java's keytool."""

import shutil
import subprocess
from pathlib import Path

INSTALL = "apt-get install openjdk-17-jre-headless"
PASSWORD = "changeit"  # noqa: S105 - of a key that is made for one broker of one test
DAYS = "30"
KEY = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", DAYS)
NAMES = "san=dns:localhost,ip:127.0.0.1"
# Four short lives: what they compile would not pay.
SHORT_LIVED = ("-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1")


class NoCertificates(Exception):
    """Raised when there is no keytool here, or it fails."""


def make(keystore: Path, ca_file: Path) -> None:
    """Write a broker's key with its chain to `keystore`, and the CA's certificate as PEM.

    Nobody holds the key of the CA afterwards: it signs once. Raises `NoCertificates`.
    """
    ca = ("-alias", "ca", "-dname", "CN=livevec-local-ca", "-ext", "bc:c=ca:true")
    broker = ("-alias", "broker", "-dname", "CN=localhost", "-ext", NAMES, "-signer", "ca")
    _keytool(keystore, "-genkeypair", *ca, *KEY)
    _keytool(keystore, "-genkeypair", *broker, *KEY)
    _keytool(keystore, "-exportcert", "-rfc", "-alias", "ca", "-file", str(ca_file))
    _keytool(keystore, "-delete", "-alias", "ca")


def _keytool(keystore: Path, *arguments: str) -> None:
    if shutil.which("keytool") is None:
        msg = f"certificates need Java's keytool, found none: {INSTALL}"
        raise NoCertificates(msg)
    store = ("-keystore", str(keystore), "-storetype", "PKCS12", "-storepass", PASSWORD)
    command = ["keytool", *SHORT_LIVED, *arguments, *store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        found = " / ".join((done.stdout + done.stderr).strip().splitlines()[-5:]) or "nothing"
        msg = f"expected keytool {arguments[0]} to write {keystore}, found: {found}"
        raise NoCertificates(msg)
