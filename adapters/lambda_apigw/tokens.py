"""Keys, of tokens and of schools: from the environment in a local run, from a parameter or secret on AWS."""

from __future__ import annotations

from adapters.lambda_apigw.config import ConfigError, Settings, token_keys

_PARAMETER_SECONDS = 300


def keys(settings: Settings) -> dict[str, str]:
    """Token keys by `kid`. Raises ConfigError."""
    if settings.token_secret:
        return token_keys(settings.token_secret)
    return token_keys(_parameter(settings.token_secret_parameter, "PROCTORWIRE_TOKEN_SECRET"))


def school_keys(settings: Settings) -> str:
    """School keys as they are written: `school:key,school:key`. Raises ConfigError."""
    return settings.school_keys or _parameter(settings.school_keys_parameter, "PROCTORWIRE_SCHOOL_KEYS")


def _parameter(name: str, variable: str) -> str:
    """The text of a parameter or secret, through Powertools, which keeps it for five minutes; its boto3 is imported only then."""
    if not name:
        raise ConfigError(f"neither {variable} nor {variable}_PARAMETER is set")
    from aws_lambda_powertools.utilities import parameters

    if name.startswith("arn:aws:secretsmanager:"):
        return str(parameters.get_secret(name, max_age=_PARAMETER_SECONDS))
    return str(parameters.get_parameter(name, decrypt=True, max_age=_PARAMETER_SECONDS))
