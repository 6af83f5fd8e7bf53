import pytest

from streamer.settings.masking import masked, masked_text


def test_secrets_are_masked_at_every_depth_and_nothing_else_is():
    settings = {
        "source": {
            "kafka": {
                "client": {
                    "sasl_plain_username": "me",
                    "sasl_plain_password": "word",
                    "ssl_password": "word",
                    "proxy_url": "http://me:wo@rd@proxy:3128",
                    "retries": 3,
                },
                "bootstrap_servers": ["a:1", "b:2"],
            }
        },
        "registry": [{"api_token": "word"}],
    }

    shown = masked(settings)

    assert shown == {
        "source": {
            "kafka": {
                "client": {
                    "sasl_plain_username": "me",
                    "sasl_plain_password": "***",
                    "ssl_password": "***",
                    "proxy_url": "http://***@proxy:3128",
                    "retries": 3,
                },
                "bootstrap_servers": ["a:1", "b:2"],
            }
        },
        "registry": [{"api_token": "***"}],
    }


@pytest.mark.parametrize("value", [None, ""])
def test_a_secret_that_is_not_set_is_seen_to_be_none(value):
    assert masked({"ssl_password": value}) == {"ssl_password": value}


def test_a_text_without_a_user_stays_as_it_is():
    text = "http://proxy:3128, and me@proxy"

    assert masked_text(text) == text
