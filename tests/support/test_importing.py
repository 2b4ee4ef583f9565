import json
from datetime import UTC, datetime
from io import BytesIO

import pytest
from django.core import mail
from django.db import OperationalError

from support import importing, outbox
from support.models import AuditEntry, OutboxEntry, Product, Question, Subscription, User
from tests.factories import ProductFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def line(number=1, **fields):
    row = {"site": "lamps.example", "id": str(number), "title": f"Lamp {number} is dark"}
    return json.dumps(
        row | {"body": "It hums.", "date": "2021-04-27T15:06:44.553"} | fields
    ).encode()


def run(*lines, **options):
    return importing.import_questions(lines, now=NOW, **options)


def test_a_question_is_stored_with_its_product_date_and_source():
    report = run(line(1))

    question = Question.objects.get()
    assert (question.title, question.body) == ("Lamp 1 is dark", "It hums.")
    assert (question.source, question.audience) == ("lamps.example:1", "public")
    assert question.asked_at == datetime(2021, 4, 27, 15, 6, 44, 553000, tzinfo=UTC)
    assert (question.product.slug, question.product.name) == ("lamps-example", "lamps.example")
    assert (report.read, report.stored, report.skipped) == (1, 1, 0)


def test_nothing_is_imported_unchecked(bells, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        run(line(1), line(2))

    assert OutboxEntry.objects.waiting().filter(is_background=True).count() == 2
    assert OutboxEntry.objects.unchecked().count() == 2
    assert bells == ["bell"]


def test_importing_again_leaves_all_as_it_is():
    run(line(1), line(2))
    OutboxEntry.objects.update(settled_at=NOW)
    Question.objects.filter(source="lamps.example:1").update(title="Edited here")

    report = run(line(1), line(2), line(3))

    assert (report.stored, report.known) == (1, 2)
    assert Question.objects.get(source="lamps.example:1").title == "Edited here"
    assert OutboxEntry.objects.waiting().count() == 1


def test_an_import_that_broke_off_keeps_its_batches_and_goes_on(monkeypatch):
    monkeypatch.setattr(importing, "BATCH", 2)
    lines = [line(number) for number in range(5)]
    put_all, calls = outbox.put_all, []

    def break_at_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OperationalError
        return put_all(*args, **kwargs)

    monkeypatch.setattr(outbox, "put_all", break_at_second)
    with pytest.raises(OperationalError):
        run(*lines)
    assert (Question.objects.count(), OutboxEntry.objects.count()) == (2, 2)

    assert run(*lines).stored == 3
    assert OutboxEntry.objects.waiting().count() == 5


def test_a_question_twice_in_one_file_is_stored_once():
    report = run(line(1), line(1))

    assert (report.stored, report.known) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not an object"),
        (line(9, title=""), "title is missing"),
        (line(9, site=None), "site is missing"),
        (line(id={}), "id is missing"),
        (line(9, body=3), "body is no text"),
        (line(9, title="\u200b\u0301"), "cannot be blank"),
        (line(9, body="\x00"), "cannot be stored"),
        (line(9, title="\ud800 lamp"), "cannot be stored"),
        (line(9, site="\u2026"), "gives no product"),
        (line(id="x" * 200), "at most 200"),
        (line(id="\x00"), "id: "),
        (line(site="\ud800"), "site: "),
        (line(9, body="x" * 1_000_000), "longer than"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_skipped(bad, reason):
    report = run(line(1), bad, line(2))

    ((number, said),) = report.problems
    assert number == 2
    assert reason in said
    assert (report.stored, report.skipped) == (2, 1)


def test_of_very_many_bad_lines_all_are_counted_and_some_are_named():
    report = run(*[b"{"] * 300)

    assert (report.skipped, len(report.problems)) == (300, importing.MOST_PROBLEMS)


def test_a_line_without_end_is_not_read_into_memory_whole():
    file = BytesIO(line(1) + b"\n" + b"x" * 3_500_000 + b"\n" + line(2) + b"\n")

    lines = list(importing.lines_of(file))

    assert [len(found) <= importing.LARGEST_LINE + 1 for found in lines] == [True] * 3
    assert (run(*lines).stored, Question.objects.count()) == (2, 2)


def test_texts_over_the_limits_are_cut_and_that_is_counted():
    report = run(line(1, title="t" * 300, body="b" * 30_000), line(2))

    question = Question.objects.get(source="lamps.example:1")
    assert (len(question.title), len(question.body)) == (200, 20_000)
    assert question.title.endswith("…")
    assert report.cut == 1


def test_html_becomes_markdown():
    run(line(1, title="A &lt;b&gt; <b>tag</b>", body="<p>It <code>hums</code></p>"))

    question = Question.objects.get()
    assert (question.title, question.body) == ("A <b> **tag**", "It `hums`")


def test_a_number_as_id_and_no_body_will_do():
    assert run(b'{"site": "lamps", "id": 7, "title": "It is dark"}').stored == 1
    assert Question.objects.get().source == "lamps:7"


@pytest.mark.parametrize("date", [None, "yesterday", "2999-01-01", 5])
def test_without_a_date_that_was_it_is_asked_now(date):
    run(line(1, date=date))

    assert Question.objects.get().asked_at == NOW


def test_all_can_go_into_one_product():
    lamp = ProductFactory(slug="lamp")

    run(line(1), line(2, site="other"), product="lamp")

    assert set(Question.objects.values_list("product", flat=True)) == {lamp.pk}
    assert Product.objects.count() == 1


def test_the_importer_cannot_log_in_and_follows_nothing():
    run(line(1))

    importer = User.objects.get(username=importing.IMPORTER)
    assert (importer.is_active, importer.mail_pace) == (False, "none")
    assert not importer.has_usable_password()
    assert not Subscription.objects.exists()
    assert mail.outbox == []


def test_an_import_is_on_record():
    run(line(1), line(2))

    assert AuditEntry.objects.get(action="imported").details["number"] == 2


def test_a_dry_run_says_what_would_be_done_and_does_nothing():
    report = run(line(1), b"{", line(2), dry_run=True)

    assert (report.stored, report.skipped) == (2, 1)
    assert not Question.objects.exists()
    assert not User.objects.filter(username=importing.IMPORTER).exists()


def test_a_limit_is_kept_and_each_batch_is_told(monkeypatch):
    monkeypatch.setattr(importing, "BATCH", 2)
    steps = []

    run(*[line(n) for n in range(9)], limit=5, step=lambda report: steps.append(report.stored))

    assert steps == [2, 4, 5]


def test_a_batch_costs_few_queries(django_assert_max_num_queries):
    with django_assert_max_num_queries(20):
        run(*[line(number) for number in range(400)])
