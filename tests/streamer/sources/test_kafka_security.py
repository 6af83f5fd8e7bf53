import pytest

from streamer.sources.kafka_security import security_faults

PLAIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "me",
    "sasl_plain_password": "open sesame",
}
# Of nobody: it has signed itself alone, and no broker has ever seen it.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUM7Kiq+UVJ4Le8y9qpa5U3TmMuR4wCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNbGl2ZXZlYy10ZXN0czAgFw0yNjExMjExMjE0NTVaGA8yMTI2
MTAyODEyMTQ1NVowGDEWMBQGA1UEAwwNbGl2ZXZlYy10ZXN0czBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABL75wmo5aUtbGbPvzh/kA7dVXQsCUFkQGrGfsPAaUjVk
86miVkv964E6599OgiwjHUE3rWUxIwf0n5DDQTd0Ah2jUzBRMB0GA1UdDgQWBBTY
3zI4AziBbBgwd8EclCSK4/5ZvzAfBgNVHSMEGDAWgBTY3zI4AziBbBgwd8EclCSK
4/5ZvzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCf95mVdzHF
pPK6zc2i4RMn2vnPK/BcDwP4MqIzO0CwvwIgX6sTGJaDvY8mnDQprut4lAynFaZW
Fum6Wr0Qt9s5gDI=
-----END CERTIFICATE-----
"""
KEY_PASSWORD = "sesame"
KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAiWmLYoG6KASAICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIEuhJOct3CBMEgZBEFG6nM4BWhUvf
cZwNTlswboEnwnPjGrfq1u740KpWFDSgi7h1tn6Oh/qEaATIg8zcIq37pBuOSTda
EMjlYeWunjzTvjn7qhYT9H9MywBP8lWdj7uT6pZq9kLHoqvkEOMINVtbJrH3jvv2
Po7TaOpQtxo74Kl7dsicFqmlaKAMvKHBP15N5SP3cJFTo31DkHg=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_whole_login_has_no_fault(mechanism):
    assert security_faults({**PLAIN, "sasl_mechanism": mechanism}) == []
    assert security_faults({}) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"security_protocol": "SASL-SSL"}, "security_protocol: expected one of PLAINTEXT, SSL, "),
        ({"sasl_mechanism": "scram"}, "sasl_mechanism: expected one of PLAIN, "),
        ({"sasl_mechanism": None}, "sasl_mechanism: expected one of PLAIN, "),
        ({"sasl_plain_password": ""}, "sasl_plain_password: expected one with PLAIN, found none"),
        ({"sasl_plain_password": 12345}, "sasl_plain_password: expected text in quotes, found int"),
        ({"proxy_url": "me:open sesame@proxy:1080"}, "proxy_url: expected a URL like "),
    ],
)
def test_a_fault_has_its_path_and_shows_no_secret(change, fault):
    (found,) = security_faults({**PLAIN, **change})

    assert found.startswith(fault)
    assert "sesame" not in found
    assert "12345" not in found


def test_a_ca_that_can_be_read_has_no_fault(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text(CERTIFICATE)

    assert security_faults({"security_protocol": "SSL", "ssl_cafile": str(path)}) == []


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_crlfile", "ssl_certfile"])
def test_a_file_that_is_missing_or_no_pem_is_named(tmp_path, protocol, name):
    missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
    wrong.write_text("no certificate")

    for path, reason in ((missing, "no such file"), (wrong, "")):
        (found,) = security_faults({**PLAIN, "security_protocol": protocol, name: str(path)})

        assert found.startswith(f"{name}: expected a PEM file of ")
        assert f"at '{path}', found: {reason}" in found


def test_a_certificate_without_its_key_is_a_fault_and_asks_no_terminal(tmp_path):
    path = tmp_path / "ours.pem"
    path.write_text(CERTIFICATE)

    (found,) = security_faults({"security_protocol": "SSL", "ssl_certfile": str(path)})

    assert found.startswith("ssl_certfile: expected a PEM file of a certific")


@pytest.mark.parametrize(
    ("password", "is_open"), [(KEY_PASSWORD, True), ("wrong", False), (None, False)]
)
def test_the_password_of_a_key_has_to_open_it(tmp_path, password, is_open):
    certificate, key = tmp_path / "ours.pem", tmp_path / "ours.key"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    client = {
        "security_protocol": "SSL",
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
        **({} if password is None else {"ssl_password": password}),
    }

    assert (security_faults(client) == []) == is_open


def test_files_that_are_not_used_are_not_read():
    assert security_faults({"security_protocol": "PLAINTEXT", "ssl_cafile": "missing.pem"}) == []
