"""Whatever stands in a text, a mail, a file of questions or a release's folder, its reader says
what it makes of it. Examples are drawn anew from the same seed each time."""

import json
import tempfile
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dedup.ml.artifact import MANIFEST, REQUIRED_KEYS, ArtifactRefused, read_manifest, verify
from dedup.ml.text import LIMIT, clean, model_input, text_hash
from support import importing, inbound
from support.models import Answer, Question
from support.models.validators import LARGEST_TITLE

NOW = datetime(2026, 11, 1, tzinfo=UTC)
few = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(max_size=60) | st.text("<>&#;[]()*_`~!\\ \n\x00\ud800\u200b\u0301a1=-", max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def written(value):
    """JSON in bytes; half characters stand in it by their number."""
    return json.dumps(value).encode()


class TestModelInput:
    @few
    @given(texts, texts)
    def test_it_is_plain_text_on_one_line(self, title, body):
        read = model_input(title, body)

        assert len(read) <= LIMIT
        assert read == read.strip()
        assert not {unicodedata.category(c) for c in read} & {"Cc", "Cf", "Cs", "Co"}
        assert len(text_hash(read)) == 64

    @few
    @given(texts)
    def test_a_text_composed_otherwise_reads_the_same(self, text):
        assert clean(unicodedata.normalize("NFD", text)) == clean(text)


@pytest.mark.django_db
class TestImport:
    @few
    @given(st.binary(max_size=200) | values.map(written))
    def test_a_line_is_stored_or_refused_with_a_reason(self, line):
        report = importing.import_questions([line], now=NOW, dry_run=True)

        assert (report.read, report.stored + report.known + report.skipped) == (1, 1)
        assert len(report.problems) == report.skipped
        assert all(why for _number, why in report.problems)

    @few
    @given(
        st.fixed_dictionaries(
            {"site": texts, "id": texts | st.integers(), "title": texts},
            optional={"body": texts | values, "date": texts | values | st.datetimes().map(str)},
        )
    )
    def test_so_is_a_line_that_looks_like_a_question(self, row):
        report = importing.import_questions([written(row)], now=NOW, product="lamp")

        assert report.stored + report.skipped + report.known == 1
        for question in Question.objects.all():
            assert 0 < len(question.title) <= LARGEST_TITLE
            assert question.asked_at <= NOW


@pytest.mark.django_db
class TestMail:
    @few
    @given(st.binary(max_size=400))
    def test_any_bytes_are_taken_as_a_mail_that_says_nothing(self, raw):
        assert inbound.receive(raw, now=NOW).answer is None
        assert not Answer.objects.exists()

    @few
    @given(
        st.dictionaries(
            st.sampled_from(["From", "To", "Message-ID", "Subject", "Date", "Auto-Submitted",
                             "Content-Type", "Content-Transfer-Encoding", "Content-Disposition"]),
            st.sampled_from(["text/html; charset=hex", "multipart/mixed; boundary=a",
                             "text/plain; charset*=none''x", "base64", "x-uuencode",
                             "=?hex?b?eA==?=", "<>", "a@b, c@d", "reply+1-1-x@example.com"])
            | st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]),
                      max_size=40),
        ),
        st.binary(max_size=200),
    )  # fmt: skip
    def test_so_are_odd_heads(self, head, body):
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())

        received = inbound.receive(lines.encode() + b"\r\n--a\r\n" + body, now=NOW)

        assert received.outcome
        assert received.answer is None


class TestManifest:
    def read(self, content):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / MANIFEST).write_bytes(content)
            return [refusal(reads, Path(folder)) for reads in (read_manifest, verify)]

    @few
    @given(st.binary(max_size=200) | values.map(written))
    def test_what_is_no_manifest_is_refused_in_words(self, content):
        assert all(self.read(content))

    @few
    @given(st.fixed_dictionaries(dict.fromkeys(sorted(REQUIRED_KEYS), values)))
    def test_so_is_one_whose_parts_are_something_else(self, raw):
        assert all(self.read(written(raw)))

    @pytest.mark.parametrize(
        "content", [b"[" * 100_000, b'{"name": %s}' % (b"9" * 5000)], ids=["deep", "huge"]
    )
    def test_so_is_one_that_is_deep_or_has_a_huge_number(self, content):
        assert all(self.read(content))


def refusal(reads, folder):
    try:
        reads(folder)
    except ArtifactRefused as error:
        return str(error)
    return ""
