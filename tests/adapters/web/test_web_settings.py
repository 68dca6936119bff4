"""Settings of the API: what is accepted, and what the user is told to mend."""

import secrets

import pytest

from adapters.ec2_cluster.config import SettingsError
from adapters.ec2_cluster.web import connect, read_web_settings
from adapters.lambda_apigw import config, http
from adapters.web.settings import WebSettingsError, read_endpoints, read_school_keys, read_socket_url

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
SECRET = secrets.token_hex(32)


def test_a_key_leads_to_its_school_and_a_school_may_have_several():
    keys = read_school_keys(f"north:{KEY}, south:{OTHER},north:{KEY}:with:colons")
    assert (keys.school_of(KEY), keys.school_of(OTHER)) == ("north", "south")
    assert keys.school_of(f"{KEY}:with:colons") == "north"
    assert keys.school_of(KEY[:-1]) is None
    assert keys.school_of("") is None
    assert keys.school_of("é" * 20) is None


def test_keys_are_not_kept_and_not_shown():
    keys = read_school_keys(f"north:{KEY}")
    assert KEY not in repr(keys)
    assert KEY.encode() not in keys._schools[0][0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "PROCTORWIRE_SCHOOL_KEYS"),
        (" ", "PROCTORWIRE_SCHOOL_KEYS"),
        (KEY, "key 1 is not of the form school:key"),
        (f"north:{KEY},:{OTHER}", "key 2 is not"),
        (f"north:{KEY},", "key 2 is not"),
        ("north:short", "the key of school north is shorter than 16 characters"),
        (f"north:{KEY},south:{KEY}", "two school keys are the same"),
    ],
)
def test_wrong_school_keys_are_refused_and_not_repeated(text, complaint):
    with pytest.raises(WebSettingsError) as caught:
        read_school_keys(text)
    assert complaint in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_socket_url_is_one_of_a_websocket():
    assert read_socket_url("wss://live.example/ws") == "wss://live.example/ws"
    for wrong in ("", "https://live.example", "live.example", "wss:///ws"):
        with pytest.raises(WebSettingsError):
            read_socket_url(wrong)
    assert read_endpoints(" a.example, b.example:8443,") == ("a.example", "b.example:8443")


# --- on EC2 ---------------------------------------------------------------------------------------------------------------

ENVIRONMENT = {
    "PROCTORWIRE_TOKEN_SECRET": SECRET,
    "PROCTORWIRE_SCHOOL_KEYS": f"north:{KEY}",
    "PROCTORWIRE_REDIS_URL": "redis://127.0.0.1:6379",
}


def test_what_is_given_goes_before_the_environment_and_that_before_defaults():
    server, settings = read_web_settings({}, ENVIRONMENT)
    assert (server.host, server.port, server.threads, server.redis_url) == (
        "127.0.0.1",
        8090,
        8,
        "redis://127.0.0.1:6379",
    )
    assert (settings.socket_url, settings.hosts) == ("ws://127.0.0.1:8080/ws", ("127.0.0.1:8080",))
    environment = ENVIRONMENT | {
        "PROCTORWIRE_WEB_PORT": "9000",
        "PROCTORWIRE_PORT": "1",
        "PROCTORWIRE_SOCKET_URL": "wss://a.example/ws",
        "PROCTORWIRE_ENDPOINTS": "b.example,a.example",
        "PROCTORWIRE_AUDIENCE": "exams",
    }
    assert settings.audience == ""
    server, settings = read_web_settings({"threads": 2, "host": None}, environment)
    assert (server.port, server.threads, settings.hosts) == (9000, 2, ("a.example", "b.example"))
    assert settings.audience == "exams"
    server, settings = read_web_settings({"port": 0, "school_keys": f"south:{OTHER}"}, environment)
    assert (server.port, settings.school_keys.school_of(OTHER), settings.school_keys.school_of(KEY)) == (
        0,
        "south",
        None,
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"redis_url": ""}, "no Redis: give --redis"),
        ({"token_secret": ""}, "no token secret"),
        ({"token_secret": "short"}, "shorter than 32 bytes"),
        ({"school_keys": "north"}, "school key 1"),
        ({"port": 70_000}, "port is 70000"),
        ({"port": "http"}, "port"),
        ({"threads": 0}, "threads is 0"),
        ({"socket_url": "http://x"}, "socket_url is 'http://x'"),
        ({"records": "records.txt"}, "records is 'records.txt': not a database URL"),
        ({"records": "postgresql://u@h/n?sslmode=no"}, "sslmode is 'no'"),
        ({"school_keys": ""}, "no school keys"),
    ],
)
def test_wrong_settings_are_named_in_one_line(given, complaint):
    with pytest.raises(SettingsError) as caught:
        read_web_settings(given, ENVIRONMENT)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_lie_beside_the_journal_and_may_have_every_key(tmp_path):
    journal = tmp_path / "journal.sqlite"
    server, settings = read_web_settings({"journal": str(journal), "school_keys": ""}, ENVIRONMENT)
    assert settings.school_keys.holder_of("x") is None
    settings.records.check()
    settings.records.close()
    assert (tmp_path / "journal.sqlite-records").exists()
    server, settings = read_web_settings({"journal": "dynamodb:t?region=ap-southeast-1"}, ENVIRONMENT)
    assert (server.records, type(settings.records).__name__) == ("", "DynamoRecords")


def test_a_url_that_is_no_redis_is_refused():
    with pytest.raises(SettingsError) as caught:
        connect("http://127.0.0.1")
    assert "redis_url is 'http://127.0.0.1'" in str(caught.value)


# --- on Lambda ------------------------------------------------------------------------------------------------------------


def function_settings(**variables):
    environment = {
        "AWS_REGION": "ap-southeast-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "PROCTORWIRE_STATE_TABLE": "s",
        "PROCTORWIRE_JOURNAL_TABLE": "j",
        "PROCTORWIRE_TOKEN_SECRET": SECRET,
        "PROCTORWIRE_SCHOOL_KEYS": f"north:{KEY}",
        "PROCTORWIRE_MANAGEMENT_URL": "https://x.execute-api.ap-southeast-1.amazonaws.com/live",
    }
    return http.web_settings(
        config.from_environment(environment | {f"PROCTORWIRE_{k.upper()}": v for k, v in variables.items()})
    )


def test_on_lambda_sockets_are_beside_the_management_api_unless_said():
    settings = function_settings()
    assert settings.socket_url == "wss://x.execute-api.ap-southeast-1.amazonaws.com/live"
    assert settings.hosts == ("x.execute-api.ap-southeast-1.amazonaws.com",)
    assert function_settings(socket_url="wss://live.example").hosts == ("live.example",)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"school_keys": ""}, "PROCTORWIRE_SCHOOL_KEYS nor PROCTORWIRE_SCHOOL_KEYS_PARAMETER"),
        ({"school_keys": "north"}, "school key 1"),
        ({"token_secret": ""}, "PROCTORWIRE_TOKEN_SECRET nor"),
        ({"management_url": ""}, "socket_url is ''"),
    ],
)
def test_on_lambda_what_is_missing_is_named(variables, complaint):
    with pytest.raises(config.ConfigError) as caught:
        function_settings(**variables)
    assert complaint in str(caught.value)
