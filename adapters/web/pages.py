"""What people see: the proctor's dashboard, the demo exam, and the student script that a school's own exam page loads.

    GET  /dashboard                the dashboard; a proctor's token comes in the fragment, which browsers send to nobody
    GET  /exam                     a demo exam that shows how to embed the script
    GET  /static/PATH              their parts, and proctorwire.js

Files as they are, without a build step. Pages may run and load only what comes from here, and connect only to the deployment's
sockets. The student script alone may be loaded by pages of other origins.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Response, send_from_directory

from adapters.web.openapi import operation
from adapters.web.settings import WebSettings

STATIC = Path(__file__).with_name("static")
_EMBEDDABLE = "proctorwire.js"


def pages(settings: WebSettings) -> Blueprint:
    """The routes of the pages."""
    blueprint = Blueprint("pages", __name__)
    policy = content_security_policy(settings)

    @operation(answers={200: "*/*"}, stores=False)
    def file(path: str) -> Response:
        """A part of the pages, or the student script `proctorwire.js`."""
        response = send_from_directory(STATIC, path)
        response.headers["Content-Security-Policy"] = policy
        if path == _EMBEDDABLE:
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    @operation(answers={200: "text/html"}, stores=False)
    def dashboard() -> Response:
        """The proctor's dashboard."""
        return file("dashboard.html")

    @operation(answers={200: "text/html"}, stores=False)
    def exam() -> Response:
        """The demo exam."""
        return file("exam.html")

    blueprint.add_url_rule("/dashboard", view_func=dashboard)
    blueprint.add_url_rule("/exam", view_func=exam)
    blueprint.add_url_rule("/static/<path:path>", "file", file)
    return blueprint


def content_security_policy(settings: WebSettings) -> str:
    """What a page may do: everything from here, sockets to the deployment, nothing else."""
    scheme = urlsplit(settings.socket_url).scheme
    sockets = " ".join(f"{scheme}://{host}" for host in settings.hosts)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            "img-src 'self'",
            "worker-src 'self'",
            f"connect-src 'self' {sockets}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
