"""The few options of curl that the documentation uses, so that its examples run where curl is not installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import httpx


def main() -> int:
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-F", dest="form", action="append", default=[])
    parser.add_argument("--json", dest="body")
    given = parser.parse_args()
    content = sent(given)
    headers = dict(line.split(": ", 1) for line in given.headers) | content.pop("headers", {})
    method = given.method or ("POST" if content else "GET")
    answer = httpx.request(method, given.url, headers=headers, timeout=30, trust_env=False, **content)
    sys.stdout.write(answer.text)
    return 0 if answer.is_success else 22  # as with --fail: an example of the documentation must succeed


def sent(given: argparse.Namespace) -> dict[str, Any]:
    """What httpx is to send, if anything."""
    if given.body is not None:
        return {"content": given.body, "headers": {"Content-Type": "application/json"}}
    if not given.form:
        return {}
    parts = [field.split("=", 1) for field in given.form]
    paths = [(name, Path(value[1:])) for name, value in parts if value.startswith("@")]
    files = [(name, (path.name, path.read_bytes())) for name, path in paths]
    return {"files": files, "data": {name: value for name, value in parts if not value.startswith("@")}}


if __name__ == "__main__":
    sys.exit(main())
