"""The keys that tokens are signed with: from the environment in a local run, from a parameter or secret on AWS."""

from __future__ import annotations

from adapters.lambda_apigw.config import ConfigError, Settings, token_keys

_PARAMETER_SECONDS = 300


def keys(settings: Settings) -> dict[str, str]:
    """Keys by `kid`. Raises ConfigError.

    The parameter is read through Powertools, which keeps it for five minutes; its boto3 is imported only then.
    """
    if settings.token_secret:
        return token_keys(settings.token_secret)
    name = settings.token_secret_parameter
    if not name:
        raise ConfigError("neither PROCTORWIRE_TOKEN_SECRET nor PROCTORWIRE_TOKEN_SECRET_PARAMETER is set")
    from aws_lambda_powertools.utilities import parameters

    if name.startswith("arn:aws:secretsmanager:"):
        return token_keys(str(parameters.get_secret(name, max_age=_PARAMETER_SECONDS)))
    return token_keys(str(parameters.get_parameter(name, decrypt=True, max_age=_PARAMETER_SECONDS)))
