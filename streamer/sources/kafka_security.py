"""How Kafka's client proves itself and whom it trusts: what is wrong with these settings."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
WITH_SASL = ("SASL_PLAINTEXT", "SASL_SSL")
WITH_TLS = ("SSL", "SASL_SSL")
WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = (*WITH_PASSWORD, "GSSAPI", "AWS_MSK_IAM")
TEXTS = (
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_crlfile",
    "ssl_password",
    "proxy_url",
)
_NOISE = re.compile(r"\[[\w: ]+\] | \(_ssl\.c:\d+\)")


def security_faults(client: Mapping[str, Any]) -> list[str]:
    """Return a fault, behind its name, for each setting that cannot be right; never shows a secret.

    Files are looked at, nobody is asked.
    """
    faults = [
        f"{name}: expected text in quotes, found {type(client[name]).__name__}"
        for name in TEXTS
        if not isinstance(client.get(name, ""), str)
    ]
    protocol = client.get("security_protocol", PROTOCOLS[0])
    if protocol not in PROTOCOLS:
        # kafka-python takes any other word for PLAINTEXT, and would send the password in clear.
        faults.append(
            f"security_protocol: expected one of {_listed(PROTOCOLS)}, found {protocol!r}"
        )
    if protocol in WITH_SASL:
        faults += _faults_of_sasl(client, protocol)
    if protocol in WITH_TLS and not faults:
        faults += _faults_of_files(client)
    if not re.match(r"\w+://.", str(client.get("proxy_url", "socks5://host"))):
        faults.append("proxy_url: expected a URL like socks5://host:1080, found none")
    return faults


def _faults_of_sasl(client: Mapping[str, Any], protocol: str) -> Iterator[str]:
    mechanism = client.get("sasl_mechanism")
    if mechanism not in MECHANISMS:
        found = "none" if mechanism is None else repr(mechanism)
        yield (
            f"sasl_mechanism: expected one of {_listed(MECHANISMS)} with {protocol}, found {found}"
        )
    if mechanism in WITH_PASSWORD:
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if not client.get(name):
                yield f"{name}: expected one with {mechanism}, found none"


def _faults_of_files(client: Mapping[str, Any]) -> Iterator[str]:
    """Read the files as kafka-python does at each connection, where nobody would see the fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("ssl_cafile", "ssl_crlfile"):
        if path := client.get(name):
            yield from _fault_of_file(name, "of certificates", path, context.load_verify_locations)
    key, password = client.get("ssl_keyfile"), client.get("ssl_password", "")

    def load_chain(path: str) -> None:
        # Without a password OpenSSL would ask the terminal.
        context.load_cert_chain(path, key, lambda: password)

    if certificate := client.get("ssl_certfile"):
        what = "of a certificate, its key in it or in ssl_keyfile, that ssl_password opens,"
        yield from _fault_of_file("ssl_certfile", what, certificate, load_chain)


def _fault_of_file(name: str, what: str, path: str, load: Callable[[str], None]) -> Iterator[str]:
    try:
        load(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        found = _NOISE.sub("", reason[0].lower() + reason[1:])
        yield f"{name}: expected a PEM file {what} at {path!r}, found: {found}"


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)
