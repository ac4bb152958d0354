"""Middleware of the kind that applications copy from recipes: fields that replace the method and the target."""

from urllib.parse import unquote_to_bytes

METHODS = ("HTTP_X_HTTP_METHOD", "HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_METHOD_OVERRIDE")
TARGETS = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL")
FORWARDING = (
    "X-Host", "X-Original-Host", "Front-End-Https", "X-Url-Scheme", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
)


def overridden(application):
    """A WSGI application that obeys these fields."""

    def serve(environ, start_response):
        for name in METHODS:
            if name in environ:
                environ["REQUEST_METHOD"] = environ[name].upper()
        for name in TARGETS:
            if environ.get(name, "").startswith("/"):
                environ["PATH_INFO"] = unquote_to_bytes(environ[name]).decode("latin-1")
        return application(environ, start_response)

    return serve
