from __future__ import annotations

import httpx
import pytest

from component.api.fake_app import FakeApp

SEARCH = "/v1/collections/default/search"
JSON = {"Content-Type": "application/json"}


async def test_malformed_json_is_400_and_says_where(client: httpx.AsyncClient) -> None:
    answer = await client.post(SEARCH, content=b'{"query":\n "x",}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "line 2, column 6" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b'{"query": "x", "top_k": NaN}', "NaN is not a JSON number"),
        (b'{"query": "x", "filter": {"a": -Infinity}}', "-Infinity is not a JSON number"),
        (b'{"query": "x", "filter": {"a": 1e999}}', "larger than a number can be"),
        (b'{"query": "\xff"}', "not UTF-8: byte 11 is 0xff"),
        (b"[" * 100_000, "nests deeper"),
        (b'{"top_k": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
async def test_what_cannot_be_stored_and_sent_back_unchanged_is_refused(
    client: httpx.AsyncClient, body: bytes, words: str
) -> None:
    answer = await client.post(SEARCH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"top_k": 0}, "top_k: expected at least 1, found 0"),
        ({"top_k": 1001}, "top_k: expected at most 1000, found 1001"),
        ({"top_k": "5"}, "top_k: expected a whole number, found '5'"),
        ({"top_k": True}, "top_k: expected a whole number, found true"),
        ({"mode": "fuzzy"}, "mode: expected one of 'hybrid', 'dense' or 'lexical', found 'fuzzy'"),
        ({"topk": 5}, "topk: expected 'top_k' (did you mean that?), found the unknown field 'topk'"),
        ({"query": ""}, "query: expected a length of at least 1, found ''"),
        ({"filter": []}, "filter: expected a JSON object, found []"),
        ({"rerank": "yes"}, "rerank: expected true or false, found 'yes'"),
        (
            {"history": [{"role": "user", "text": "x"}]},
            "history[0].content: expected a value, found nothing (and 1 more)",
        ),
    ],
)
async def test_a_wrong_field_is_named_with_what_was_expected_and_found(
    client: httpx.AsyncClient, app: FakeApp, more: dict[str, object], detail: str
) -> None:
    answer = await client.post(SEARCH, json={"query": "x", **more})
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (422, "invalid_input", detail)
    assert app.retrieval_service.calls == []


async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(SEARCH, json=[1])
    assert answer.json()["detail"] == "body: expected a JSON object, found [1]"


async def test_a_search_sent_as_a_form_is_told_which_header_to_set(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        SEARCH, content=b'{"query": "x"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["detail"]


async def test_json_needs_no_declaration(client: httpx.AsyncClient) -> None:
    assert (await client.post(SEARCH, content=b'{"query": "x"}')).status_code == 200


async def test_a_byte_order_mark_before_json_is_no_error(client: httpx.AsyncClient) -> None:
    """PowerShell and Notepad write it; the answer was advice about Python's codecs."""
    assert (await client.post(SEARCH, content=b'\xef\xbb\xbf{"query": "x"}', headers=JSON)).status_code == 200


async def test_a_number_of_5000_digits_is_refused_without_advice_on_python(client: httpx.AsyncClient) -> None:
    """The detail told the caller to use sys.set_int_max_str_digits()."""
    answer = await client.post(SEARCH, content=b'{"top_k": ' + b"9" * 5000 + b"}", headers=JSON)
    assert answer.json()["detail"] == "the body is not valid JSON: a number has more digits than can be read"


@pytest.mark.parametrize("document_id", ["..", ".", "../../other", "a/./b", "a\nb", "a\x1b[2Jb", "a\x00"])
async def test_an_id_that_no_address_can_hold_is_refused(client: httpx.AsyncClient, document_id: str) -> None:
    r"""A document "a\nb" was accepted and could then be neither read nor deleted; deleting one called ".." deleted the
    collection, because clients resolve the parts . and .. of an address before they send it."""
    answer = await client.post(
        "/v1/collections/default/documents", json={"documents": [{"id": document_id, "text": "x"}]}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "documents[0].id")
    assert answer.json()["errors"][0]["expected"].startswith("an id without control characters")


@pytest.mark.parametrize("document_id", ["...", ".hidden", "a..b/c.", "ä ö/日本?#%2f"])
async def test_other_ids_are_kept_as_they_are(client: httpx.AsyncClient, app: FakeApp, document_id: str) -> None:
    answer = await client.post(
        "/v1/collections/default/documents", json={"documents": [{"id": document_id, "text": "x"}]}
    )
    assert answer.status_code == 202
