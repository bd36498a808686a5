"""Serve static files by WhiteNoise without streaming, because Django warns of it under ASGI."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # it has no types
    """The middleware that sends a whole file at once; the largest has 1.5 MB."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        """Return the response for a static file, with the file in memory."""
        found = static_file.get_response(request.method, request.META)
        response = HttpResponse(status=int(found.status))
        if found.file is not None:
            with found.file as file:
                response.content = file.read()
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
