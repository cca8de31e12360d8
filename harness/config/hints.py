"""Keys that people write at the top of a spec and that stand elsewhere in it, with their right place."""

from typing import Final

_TARGET: Final = ("url", "urls", "sim", "command", "model", "endpoint", "headers", "auth", "tls")
_WORKLOAD: Final = (
    "profile", "trace", "arrivals", "users", "stages", "requests", "duration", "warmup", "prompt_tokens",
    "output_tokens", "content", "locustfile", "classes", "tenants", "sessions",
)  # fmt: skip
ELSEWHERE: Final = {
    **{key: f"target: {{{key}: ...}}" for key in _TARGET},
    **{key: f"workload: {{{key}: ...}}" for key in _WORKLOAD},
    **dict.fromkeys(("rate", "qps", "rps", "request_rate"), "workload: {arrivals: {rate: ...}}"),
    **dict.fromkeys(("concurrency", "max_concurrency"), "workload: {users: ...}"),
    **dict.fromkeys(("server_metrics", "metrics"), "telemetry: {server: none}"),
}
