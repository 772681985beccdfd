from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.dates import iso_date


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D:20240103093826+01'00'", "2024-01-03T08:38:26Z"),
        ("D:20240103093826-05'30", "2024-01-03T15:08:26Z"),
        ("D:20240103093826Z00'00'", "2024-01-03T09:38:26Z"),
        ("D:20240103093826", "2024-01-03T09:38:26"),
        ("20240103", "2024-01-03"),
        ("2024-01-03T09:38:26+01:00", "2024-01-03T08:38:26Z"),
        ("2024-01-03T09:38:26.123Z", "2024-01-03T09:38:26Z"),
        ("2024-01-03 09:38", "2024-01-03T09:38:00"),
        ("2024-01-03", "2024-01-03"),
        ("2024/01/03", "2024-01-03"),
        ("2024", "2024"),
        ("2024-01", "2024-01"),
        ("Wed, 03 Jan 2024 09:38:26 +0100", "2024-01-03T08:38:26Z"),
        ("Wed, 03 Jan 2024 09:38:26 GMT (UTC)", "2024-01-03T09:38:26Z"),
        ("January 3, 2024", "2024-01-03"),
        ("3 Jan 2024", "2024-01-03"),
    ],
)
def test_a_date_has_one_form_however_it_was_written(text: str, expected: str) -> None:
    assert iso_date(text) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "D:20249903", "2024-13-45", "03/01/2024", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_date_or_could_be_two_is_none(text: str) -> None:
    assert iso_date(text) is None


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1900, 1, 2), datetime(2999, 12, 30), timezones=ZONES)  # noqa: DTZ001 - hypothesis adds the zone


@given(TIMES)
def test_every_way_of_writing_an_instant_gives_the_same(at: datetime) -> None:
    at = at.replace(microsecond=0)
    expected = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    zone = at.strftime("%z")
    assert iso_date(at.isoformat()) == expected
    assert iso_date(f"D:{at:%Y%m%d%H%M%S}{zone[:3]}'{zone[3:]}'") == expected
    assert iso_date(format_datetime(at)) == expected


@given(st.text(max_size=40) | st.text("D:+-'Z0123456789TJan, /.", max_size=30))
def test_anything_gives_a_date_or_none(text: str) -> None:
    found = iso_date(text)
    assert found is None or found[:4].isdecimal()
