"""Numbers of the service in Prometheus' text format."""

from __future__ import annotations

from .service import Service


def describe(service: Service) -> str:
    lines = [
        "# HELP kleinod_api_pictures Pictures by state.",
        "# TYPE kleinod_api_pictures gauge",
    ]
    lines += [
        f'kleinod_api_pictures{{state="{state}"}} {count}' for state, count in service.book.count().items()
    ]
    for name, kind, words, value in (
        ("requests_total", "counter", "HTTP requests answered since the start.", service.requests),
        (
            "drawing_seconds_total",
            "counter",
            "Seconds that pictures took.",
            round(service.dispatcher.seconds, 3),
        ),
        ("store_bytes", "gauge", "Bytes of all results kept.", service.store.size()),
        (
            "uptime_seconds",
            "gauge",
            "Seconds since the start.",
            round(service.book.now() - service.started, 1),
        ),
    ):
        lines += [f"# HELP kleinod_api_{name} {words}", f"# TYPE kleinod_api_{name} {kind}"]
        lines.append(f"kleinod_api_{name} {value}")
    return "\n".join(lines) + "\n"
