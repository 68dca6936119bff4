"""PostToConnection with http.client and a signature made here, written independently of the code under test."""

import hashlib
import hmac
import http.client
import os
import time
from urllib.parse import quote, urlsplit


def post(management_url, connection_id, data):
    return call("POST", management_url, connection_id, data)[0]


def call(method, management_url, connection_id, data=b"", headers=None, secret=None):
    url = urlsplit(management_url)
    path = f"{url.path}/@connections/{quote(connection_id, safe='')}"
    region = os.environ.get("AWS_REGION", "ap-southeast-1")
    key_id = os.environ.get("AWS_ACCESS_KEY_ID", "AKIDLOCAL")
    secret = secret or os.environ.get("AWS_SECRET_ACCESS_KEY", "local-secret")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{stamp[:8]}/{region}/execute-api/aws4_request"
    canonical = (
        f"{method}\n{quote(path, safe='/~')}\n\nhost:{url.netloc}\nx-amz-date:{stamp}\n\nhost;x-amz-date\n"
        + hashlib.sha256(data).hexdigest()
    )
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    send = {
        "x-amz-date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders=host;x-amz-date, "
        f"Signature={signature}",
    }
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request(method, path, data, send if headers is None else headers)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()
