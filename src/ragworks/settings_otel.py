"""What OpenTelemetry's variables say of our settings; the rest of them its SDK reads when it starts."""

from __future__ import annotations

from collections.abc import Mapping

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SPOKEN = "http/protobuf"


def defaults(environ: Mapping[str, str]) -> dict[str, bool]:
    """What holds unless a setting says otherwise."""
    captured = environ.get(CAPTURE, "").lower() in ("true", "span_only", "span_and_event")
    named = any(environ.get(name) for name in ENDPOINTS) or "otlp" in _exporters(environ)
    return ({"enabled": True} if named else {}) | ({"capture_text": True} if captured else {})


def forced(environ: Mapping[str, str]) -> dict[str, bool]:
    """What holds whatever the settings say: who switches OpenTelemetry off means all of it."""
    exporters = _exporters(environ)
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or (exporters and "otlp" not in exporters)
    return {"enabled": False} if off else {}


def _exporters(environ: Mapping[str, str]) -> set[str]:
    return {name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()}


def unspoken(environ: Mapping[str, str]) -> str:
    """The protocol that a variable asks for and that is not spoken here; empty if there is none."""
    wanted = next((environ[name] for name in PROTOCOLS if environ.get(name)), SPOKEN)
    return "" if wanted == SPOKEN else wanted
