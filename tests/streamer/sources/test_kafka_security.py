import pytest

from streamer.sources.kafka_security import security_faults

PLAIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "me",
    "sasl_plain_password": "open sesame",
}
# Of a CA that has signed nothing.
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBXjCCAQOgAwIBAgIJANN6pHBKKwKHMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMT
D2xpdmV2ZWMtdGVzdC1jYTAeFw0yNjExMjExMTM3NTRaFw0zNjExMTgxMTM3NTRa
MBoxGDAWBgNVBAMTD2xpdmV2ZWMtdGVzdC1jYTBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABF2ieXhn2WpkXnYCOE78cdvro3PuUqq8BE0R3xIiVIGIasQF6rwZjU9L
JJ0Jc/Gr9L8+H7jof0nyKY5omv0uWkSjMjAwMB0GA1UdDgQWBBSQIJhpS8VMVsCi
03ItIZ4gULgpYDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCs
Z7wxbBC9oC/owzFP+qSEUgYZ13RO/3LgFwVQs/7qWwIhAO+3nUWHn21O9VPKTsNq
wgJ0CsdwPjbzNc7etICM2ccd
-----END CERTIFICATE-----
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

    assert found.startswith(f"source.kafka.client.{fault}")
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

        assert found.startswith(f"source.kafka.client.{name}: expected a PEM file of ")
        assert f"at '{path}', found: {reason}" in found


def test_a_certificate_without_its_key_is_a_fault_and_asks_no_terminal(tmp_path):
    path = tmp_path / "ours.pem"
    path.write_text(CERTIFICATE)

    (found,) = security_faults({"security_protocol": "SSL", "ssl_certfile": str(path)})

    assert found.startswith("source.kafka.client.ssl_certfile: expected a PEM file of a certific")


def test_files_that_are_not_used_are_not_read():
    assert security_faults({"security_protocol": "PLAINTEXT", "ssl_cafile": "missing.pem"}) == []
