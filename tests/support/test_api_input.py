"""Every bad input gets a refusal with a code; nothing that is sent makes the site fail."""

import json
from string import hexdigits

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from support.models import Question
from tests.factories import FlagFactory, ProductFactory, QuestionFactory

pytestmark = pytest.mark.django_db
QUESTIONS = "/api/v1/questions/"
ZERO_WIDTH = "\u200b\u200d\u2060\ufeff"
COMBINING = "\u0301\u0302\u20dd"
BOM = b"\xef\xbb\xbf"


def asked(**changes):
    return {"product": "lamp", "title": "How do I dim it?", "body": "Too bright."} | changes


def raw(text, **changes):
    """JSON as somebody typed it, with `text` where the title stands."""
    return json.dumps(asked(title="@", **changes)).replace('"@"', text).encode()


@pytest.fixture
def send(customer):
    ProductFactory()

    def post(body, address=QUESTIONS, content_type="application/json", by=customer):
        client = APIClient()
        client.force_authenticate(by)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.generic("POST", address, body, content_type=content_type)

    return post


BLANK = {
    "empty": asked(title=""),
    "white space": asked(title=" \t\n "),
    "zero width": asked(title=ZERO_WIDTH),
    "combining marks": asked(title=COMBINING),
    "no-break spaces": asked(title="\u00a0\u3000"),
}
INVALID = {
    "a list as title": asked(title=["x"]),
    "an object as title": asked(title={"x": 1}),
    "a truth as title": asked(title=True),
    "nothing as title": asked(title=None),
    "a list as root": [asked()],
    "a text as root": "title",
    "a number as root": 5,
}
PARSE_ERROR = {
    "broken": b'{"title": ',
    "two roots": b"{} {}",
    "no JSON": b"title=x",
    "UTF-16": json.dumps(asked()).encode("utf-16"),
    "UTF-32": json.dumps(asked()).encode("utf-32"),
    "a byte order mark": BOM + json.dumps(asked()).encode(),
    "bad UTF-8": raw('"\xff"').decode("latin-1").encode("latin-1") + b"\xff",
    "half a character": b'{"title": "\xe2\x82"}',
    "NaN": raw("NaN"),
    "Infinity": raw("-Infinity"),
    "infinite by its exponent": raw("1e999"),
    "5,000 digits": raw("9" * 5000),
}
UNSTORABLE = {
    "NUL": raw('"a\\u0000b"'),
    "NUL in the body": asked(body="a\0b"),
    "NUL deep inside": asked(title={"a": [{"b": "\0"}]}),
    "NUL in a key": {"ti\0tle": "x"},
    "a lone surrogate": raw('"\\ud800"'),
    "surrogates the wrong way round": raw('"\\udc00\\ud800"'),
    "a lone surrogate in a key": b'{"\\udfff": 1}',
}
TOO_DEEP = {
    "5,000 lists": raw("[" * 5000 + "]" * 5000),
    "5,000 objects": raw('{"a":' * 5000 + "1" + "}" * 5000),
    "lists that are never closed": b"[" * 200_000,
    "21": raw("[" * 21 + "]" * 21),
}
OTHERS = {
    "title of 201": (asked(title="x" * 201), "too_long"),
    "a number as title": (raw("9" * 201), "invalid"),
    "body of 20,001": (asked(body="x" * 20_001), "too_long"),
    "a key twice": (b'{"title": "a", "title": "b"}', "duplicate_key"),
    "a key twice inside": (b'{"title": {"a": 1, "a": 2}}', "duplicate_key"),
    "unknown field": (asked(colour="red"), "unknown_field"),
    "read-only field": (asked(id=1), "unknown_field"),
    "read-only version": (asked(version=7), "unknown_field"),
    "somebody else as asker": (asked(asked_by="root"), "unknown_field"),
    "a canonical": (asked(canonical=1), "unknown_field"),
    "no title": ({"product": "lamp"}, "required"),
    "nothing": (b"", "required"),
    "a list as product": (asked(product=["lamp"]), "does_not_exist"),
    "an object as product": (asked(product={"slug": "lamp"}), "does_not_exist"),
    "unknown product": (asked(product="moon"), "does_not_exist"),
    "unknown audience": (asked(audience="friends"), "invalid_choice"),
}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        *(pytest.param(body, "blank", id=name) for name, body in BLANK.items()),
        *(pytest.param(body, "invalid", id=name) for name, body in INVALID.items()),
        *(pytest.param(body, "parse_error", id=name) for name, body in PARSE_ERROR.items()),
        *(pytest.param(body, "invalid_character", id=name) for name, body in UNSTORABLE.items()),
        *(pytest.param(body, "too_deep", id=name) for name, body in TOO_DEEP.items()),
        *(pytest.param(*row, id=name) for name, row in OTHERS.items()),
    ],
)
def test_a_bad_body_is_refused_with_its_code(send, body, code):
    answer = send(body)

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not Question.objects.exists()


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("<script>alert(1)</script>", "[x](javascript:alert(1))"),
        ("=HYPERLINK(1)", "+1 -1 @x"),
        ("\u202egnorw", "\u2066isolated"),
        ('Braces [ { in \\" text', "[" * 100),
        ("👩‍👩‍👧‍👦 😀", "\x01\x1b[31m"),
        ("x" * 200, "x" * 20_000),
    ],
)
def test_what_is_odd_and_harmless_is_stored_as_it_was_written(send, title, body):
    answer = send(asked(title=title, body=body))

    assert answer.status_code == 201
    question = Question.objects.get()
    assert (question.title, question.body) == (title, body)


def test_what_is_too_long_is_told_its_limit_and_its_length(send):
    title, body = (send(asked(**{name: "x" * size})).json() for name, size in
                   [("title", 201), ("body", 20_001)])  # fmt: skip

    assert (title["field"], body["field"]) == ("title", "body")
    assert "200" in title["detail"]
    assert "201" in title["detail"]
    assert "20000" in body["detail"]
    assert "20001" in body["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "",
        "x",
        "multipart/form-data",
    ],
)
def test_another_content_type_is_refused(send, content_type):
    answer = send(asked(), content_type=content_type)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_body_over_256_kb_is_refused_with_problem_details(send):
    answer = send(asked(body="x" * 256 * 1024))

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"]


@pytest.mark.parametrize(
    "address", [f"{QUESTIONS}?audience=%00", "/api/v1/%00/", f"{QUESTIONS}%00/"]
)
def test_a_nul_in_the_address_is_refused(send, customer, address):
    client = APIClient()
    client.force_authenticate(customer)

    answer = client.get(address)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_character")


@pytest.mark.parametrize("query", ["%ED%A0%80", "%FF", "a" * 5000, "%F0%9F", "%E2%80%AE"])
def test_an_odd_query_is_refused_or_finds_nothing(send, customer, query):
    client = APIClient()
    client.force_authenticate(customer)

    assert client.get(f"{QUESTIONS}?audience={query}").status_code == 400
    assert client.get(f"{QUESTIONS}?cursor={query}").status_code == 404
    assert client.get(f"{QUESTIONS}?product__slug={query}").json()["results"] == []


@pytest.mark.parametrize("pk", ["9" * 17, "9" * 18, "9" * 5000, "0", "-1", "1.5", "²", "x", "1e3"])
def test_an_id_that_is_none_is_not_found(send, customer, pk):
    client = APIClient()
    client.force_authenticate(customer)

    assert client.get(f"{QUESTIONS}{pk}/").status_code == 404


ODD_VALUES = [
    10**30, -1, 1.5, 1e300, True, "x", "", "9" * 5000, [], [1], {}, {"id": 1}, None, "\u00b2",
]  # fmt: skip


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_an_odd_question_to_merge_is_refused(send, admin, value):
    given = {"duplicate": value, "canonical": QuestionFactory().pk}

    answer = send(given, address="/api/v1/merges/", by=admin)

    assert (answer.status_code, answer.json()["field"]) == (400, "duplicate")


@pytest.mark.parametrize(
    "versions",
    [*ODD_VALUES[:10], {"x": 1}, {"9" * 5000: 1}, {"²": 1}, {"1": "x"}, {"1": 1e300}],
    ids=repr,
)
def test_odd_versions_of_a_merge_are_refused(send, admin, versions):
    one, other = QuestionFactory.create_batch(2)
    given = {"duplicate": one.pk, "canonical": other.pk, "versions": versions}

    answer = send(given, address="/api/v1/merges/", by=admin)

    assert (answer.status_code, answer.json()["errors"][0]["code"][:7]) == (400, "invalid") or (
        answer.json()["code"] == "not_a_dict"
    )


@pytest.mark.parametrize("value", [v for v in ODD_VALUES if v not in (None, "")], ids=repr)
def test_an_odd_canonical_of_a_review_is_refused(send, agent, value):
    flag = FlagFactory()
    given = {"verdict": "confirmed", "canonical": value}

    answer = send(given, address=f"/api/v1/flags/{flag.pk}/reviews/", by=agent)

    assert (answer.status_code, answer.json()["field"]) == (400, "canonical")


@pytest.mark.parametrize("filters", ["status=x", "probability__gte=NaN", "probability__gte=x"])
def test_an_odd_filter_is_refused(agent, filters):
    client = APIClient()
    client.force_authenticate(agent)

    assert client.get(f"/api/v1/flags/?{filters}").status_code == 400


@pytest.mark.parametrize(
    "address",
    ["reviews/?flag=", "merges/?duplicate=", "flags/?probability__gte=", "flags/?cursor="],
)
@pytest.mark.parametrize("value", ["9" * 400, "1e400", "-1", "%F0", "0x1", "cD1p", "Infinity"])
def test_an_odd_number_in_a_query_never_fails(agent, address, value):
    client = APIClient()
    client.force_authenticate(agent)

    assert client.get(f"/api/v1/{address}{value}").status_code in {200, 400, 404}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["product", "title", "body", "audience", "versions", "id"]) | st.text()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(names, values, max_size=5) | values)
def test_whatever_json_is_sent_the_answer_is_never_a_failure(send, body):
    answer = send(json.dumps(body).encode())

    assert answer.status_code in {201, 400}
    assert set(answer.json()["request_id"] if answer.status_code == 400 else "") <= set(
        hexdigits + "-"
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=300))
def test_whatever_bytes_are_sent_the_answer_is_a_refusal(send, body):
    assert send(body).status_code == 400


def test_twenty_levels_are_read_and_the_next_is_too_deep_but_brackets_in_a_text_are_none(send):
    def code(levels):
        return send(raw("[" * (levels - 1) + "]" * (levels - 1))).json()["code"]

    assert (code(20), code(21)) == ("invalid", "too_deep")
    assert send(raw('"How do I type [[[[[[[[[[[[[[[[[[[[[[[ ?"')).status_code == 201


def test_levels_are_counted_where_they_are_not_how_often_something_is_opened_and_closed(send):
    wide = "[" + ",".join(["[]"] * 40) + "]"
    deep = "[" * 19 + "]" * 19

    assert send(raw(wide)).json()["code"] == "invalid"
    assert send(raw(f"[[],[],{deep}]")).json()["code"] == "too_deep"


def test_a_quotation_mark_in_a_text_does_not_end_it_but_a_backslash_before_its_end_does(send):
    brackets = "[" * 30

    assert send(raw(rf'"say \"{brackets}\" to it"')).status_code == 201
    assert send(raw(rf'"it ends in \\", "body": {brackets}')).json()["code"] == "too_deep"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"title": 1, "title": 2}', "A key stands twice."),
        (b'{"title": "\\u0000"}', "A character cannot be stored."),
        (raw("[" * 30), "This is nested too deep."),
        (b"title=x", "This is not JSON in UTF-8."),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(send, body, said):
    assert send(body).json()["detail"] == said
