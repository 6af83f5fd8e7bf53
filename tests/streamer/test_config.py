import json
from pathlib import Path

import pytest

from streamer import config
from streamer.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "livevec.toml"
    path.write_text(text)
    return path


def test_every_fault_is_reported_with_its_path(tmp_path):
    path = written(
        tmp_path,
        """
        [training]
        dim = "wide"
        [sessions]
        gap_seconds = -30
        gap = 1
        [nosuch]
        a = 1
        """,
    )

    with pytest.raises(ConfigError) as raised:
        config.load(path)

    faults = "\n".join(raised.value.faults)
    assert len(raised.value.faults) == 4
    for found in (
        "training.dim: ",
        "sessions.gap_seconds: ",
        "sessions.gap: no such",
        "nosuch: no",
    ):
        assert found in faults
    assert "'wide'" in faults
    assert "-30" in faults


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [('["hnsw"]', r"index\.kinds\.0: .*'hnsw'"), ("[]", r"index\.kinds: .*at least 1 item")],
)
def test_a_list_is_faulted_once(tmp_path, kinds, fault):
    path = written(tmp_path, f"[index]\nkinds = {kinds}\n")

    with pytest.raises(ConfigError, match=fault) as raised:
        config.load(path)

    assert len(raised.value.faults) == 1


KAFKA = '[source.kafka]\nbootstrap_servers = ["a:1"]\ntopics = ["clicks"]\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[dead_letters]\ntopic = "letters"', "expected a broker for topic 'letters'"),
        (f'{KAFKA}[dead_letters]\ntopic = "clicks"', "another topic than clicks are read from"),
        ('[dead_letters]\nclient = {client_id = "x"}', "expected bootstrap_servers beside client"),
    ],
)
def test_dead_letters_go_to_a_topic_of_their_own_on_a_broker_that_is_named(tmp_path, text, fault):
    with pytest.raises(ConfigError, match=fault):
        config.load(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        f'{KAFKA}[dead_letters]\ntopic = "letters"',
        '[dead_letters]\ntopic = "letters"\nbootstrap_servers = ["a:1"]',
        f'{KAFKA}[dead_letters]\ntopic = "clicks"\nbootstrap_servers = ["b:1"]',
    ],
)
def test_dead_letters_may_go_to_a_topic(tmp_path, text):
    assert config.load(written(tmp_path, text)).dead_letters.topic in {"letters", "clicks"}


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    path = written(tmp_path, "[training]\ndim = 32\nwindow = 3\n")
    monkeypatch.setenv("LIVEVEC_TRAINING__DIM", "128")

    loaded = config.load(path)

    assert loaded.training.dim == 128
    assert loaded.training.window == 3


def test_a_misspelt_section_in_the_environment_is_a_fault(monkeypatch):
    monkeypatch.setenv("LIVEVEC_TRAINNG__DIM", "128")

    with pytest.raises(ConfigError, match="LIVEVEC_TRAINNG__DIM"):
        config.load(None)


def test_a_misspelt_key_in_the_environment_is_a_fault(monkeypatch):
    monkeypatch.setenv("LIVEVEC_TRAINING__DIMM", "128")

    with pytest.raises(ConfigError, match=r"training\.dimm: no such setting"):
        config.load(None)


def test_a_list_in_the_environment_that_is_no_json_names_its_variable(monkeypatch):
    monkeypatch.setenv("LIVEVEC_SOURCE__FILES__PATHS", "a.csv")

    with pytest.raises(ConfigError, match=r"expected JSON .* in LIVEVEC_SOURCE__FILES__PATHS, for"):
        config.load(None)


def test_a_count_beyond_what_the_kernels_can_hold_is_a_fault(tmp_path):
    path = written(tmp_path, f"[sessions]\nmax_open = {10**20}\n")

    with pytest.raises(ConfigError, match=r"sessions\.max_open: input should be less"):
        config.load(path)


def test_a_variable_without_a_section_is_not_ours(monkeypatch):
    monkeypatch.setenv("LIVEVEC_TEST_BROKER", "localhost:9092")

    assert config.load(None).training.dim == 64


KAFKA = """
[source.kafka]
bootstrap_servers = ["localhost:9092"]
topics = ["clicks"]
client_file = "{file}"
[source.kafka.client]
sasl_plain_username = "me"
sasl_mechanism = "PLAIN"
"""


@pytest.fixture
def client_file(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text('sasl_plain_password = "open sesame"\nsasl_mechanism = "SCRAM-SHA-512"\n')
    return path


def test_the_client_has_what_its_file_holds_below_the_other_settings(tmp_path, client_file):
    loaded = config.load(written(tmp_path, KAFKA.format(file=client_file)))

    assert loaded.source.kafka.client == {
        "sasl_plain_username": "me",
        "sasl_plain_password": "open sesame",
        "sasl_mechanism": "PLAIN",
    }


def test_the_environment_may_hold_the_password_and_name_the_file(
    tmp_path, client_file, monkeypatch
):
    path = written(tmp_path, KAFKA.format(file="not-this-one.toml"))
    monkeypatch.setenv("LIVEVEC_SOURCE__KAFKA__CLIENT_FILE", str(client_file))
    monkeypatch.setenv("LIVEVEC_SOURCE__KAFKA__CLIENT__SASL_PLAIN_PASSWORD", "1e5")

    client = config.load(path).source.kafka.client

    assert client["sasl_plain_password"] == "1e5"
    assert client["sasl_mechanism"] == "PLAIN"
    assert config.load(path).source.kafka.client_file == client_file


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "client.toml: expected a file of settings for source.kafka.client, found nothing"),
        ("open sesame", "client.toml: expected a TOML file, found: "),
    ],
)
def test_a_client_file_that_cannot_be_read_is_one_fault_that_does_not_quote_it(
    tmp_path, client_file, content, fault
):
    client_file.unlink() if content is None else client_file.write_text(content)

    with pytest.raises(ConfigError, match=fault) as raised:
        config.load(written(tmp_path, KAFKA.format(file=client_file)))

    (told,) = raised.value.faults
    assert told.startswith("source.kafka: ")
    assert "sesame" not in told


def test_what_is_shown_of_settings_holds_no_secret(tmp_path, client_file):
    loaded = config.load(written(tmp_path, KAFKA.format(file=client_file)))

    shown = loaded.public()

    assert shown["source"]["kafka"]["client"] == {
        "sasl_plain_username": "me",
        "sasl_plain_password": "***",
        "sasl_mechanism": "PLAIN",
    }
    assert shown["training"] == loaded.model_dump(mode="json")["training"]
    assert "sesame" not in repr(loaded)


@pytest.mark.parametrize(
    "text",
    [
        '[source.kafka]\nbootstrap_servers = ["a:1"]\ntopics = ["x"]\nclient = "open sesame"\n',
        '[source]\nkafka = ["http://me:sesame@host"]\n',
        '[source.kafka]\nbootstrap_servers = { password = "sesame" }\ntopics = ["x"]\n',
    ],
)
def test_a_fault_does_not_quote_a_secret_in_the_wrong_place(tmp_path, text):
    with pytest.raises(ConfigError, match=r"source\.kafka.*\*\*\*") as raised:
        config.load(written(tmp_path, text))

    assert "sesame" not in str(raised.value)


def test_files_that_never_end_before_kafka_are_a_fault(tmp_path):
    path = written(
        tmp_path,
        """
        [source.files]
        paths = ["a.csv"]
        follow = true
        [source.kafka]
        bootstrap_servers = ["localhost:9092"]
        topics = ["clicks"]
        """,
    )

    with pytest.raises(ConfigError, match=r"source: expected files that end"):
        config.load(path)


@pytest.mark.parametrize("text", ["[training", "dim = \xff".encode("latin-1").decode("latin-1")])
def test_a_file_that_is_no_toml_is_one_fault(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"broken\.toml") as raised:
        config.load(path)

    assert len(raised.value.faults) == 1


def test_a_setting_that_is_no_section_is_a_fault(tmp_path):
    with pytest.raises(ConfigError, match="training"):
        config.load(written(tmp_path, "training = 3\n"))


def test_settings_cannot_be_changed():
    loaded = config.load(None)

    with pytest.raises(ValueError, match="frozen"):
        loaded.training.dim = 3


def test_the_fingerprint_holds_what_gives_the_state_its_meaning():
    one = config.load(None)
    other = config.load(None, training={"dim": 32, "window": 9}, checkpoint={"retain": 7})

    differing = {k for k, v in other.fingerprint().items() if one.fingerprint()[k] != v}

    assert differing == {"training.dim"}
    assert json.loads(json.dumps(one.fingerprint())) == one.fingerprint()


def test_every_setting_has_a_help_text():
    for section in config.Config.model_fields.values():
        for name, setting in section.annotation.model_fields.items():
            assert setting.description, name


def test_a_jump_shorter_than_the_disorder_is_a_fault():
    with pytest.raises(ConfigError, match=r"sessions: expected max_jump_seconds of at least .* 60"):
        config.load(None, sessions={"max_jump_seconds": 5, "out_of_orderness_seconds": 60})
