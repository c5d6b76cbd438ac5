"""Times as Juju writes them."""

from __future__ import annotations

import time


def now() -> str:
    """The present as ISO-8601 in UTC; how the controller stores every time."""
    return iso(time.time())


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds(text: str) -> float:
    """Seconds since the epoch of an ISO-8601 time in UTC (fractions are dropped)."""
    import calendar

    plain = text.replace("+00:00", "Z").split(".")[0].rstrip("Z") + "Z"
    return float(calendar.timegm(time.strptime(plain, "%Y-%m-%dT%H:%M:%SZ")))


def duration(text: str) -> float:
    """Seconds of a Go duration such as `1h30m`, `300ms` or a bare `0`."""
    import re

    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9, "": 1.0}
    parts = re.findall(r"([\d.]+)(ms|us|ns|h|m|s|)", str(text))
    if not parts:
        raise ValueError(f'invalid duration "{text}"')
    return sum(float(number) * units[unit] for number, unit in parts)


def since(text: str) -> str:
    """The form of `since` in status documents: `02 Jan 2006 15:04:05Z`."""
    if not text:
        return ""
    return time.strftime("%d %b %Y %H:%M:%SZ", time.gmtime(seconds(text)))
