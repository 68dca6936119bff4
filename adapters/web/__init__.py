"""The HTTP API and its pages: one WSGI app for both deployments."""
