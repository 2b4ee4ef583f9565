import json
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from dedup import backfilling, jobs, pipeline, tasks
from dedup.management import following
from dedup.models import Flag, Job, Release, Score
from dedup.texts import text_of
from support import asking, outbox
from support.models import OutboxEntry, Question
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """Tasks that were sent, instead of a broker."""
    names = []
    monkeypatch.setattr(outbox, "send", lambda task, *_, **__: names.append(task) or True)
    monkeypatch.setattr(outbox, "_suspect_is_next", False)
    monkeypatch.setattr(backfilling, "SLICE", 2)
    return names


@pytest.fixture
def stored():
    """Five questions that nobody ever checked, two of them the same."""
    titles = ["dark lamp hums", "dark lamp hums", "blue door", "old key", "loud bell"]
    return [QuestionFactory(title=title, body="") for title in titles]


def begin(kind=Job.Kind.BACKFILL, **options):
    return backfilling.begin(kind=kind, by=None, **options)


def check_all():
    while pipeline.check_waiting(limit=16):
        pass


def finish(job):
    for _ in range(20):
        backfilling.tend()
        check_all()
        job.refresh_from_db()
        if job.is_finished:
            return job
    raise AssertionError(f"{job} goes on for ever")


def waiting():
    return OutboxEntry.objects.waiting()


def told(*words, capsys):
    call_command(*words)
    return capsys.readouterr().out


def test_a_backfill_checks_all_that_nobody_ever_checked(scorer, stored):
    job = finish(begin())

    assert (job.state, job.done, job.total) == (Job.State.DONE, 5, 5)
    assert OutboxEntry.objects.filter(checked_by=scorer.release.fingerprint).count() == 5
    flag = Flag.objects.get()
    assert {flag.older, flag.newer} == set(stored[:2])


def test_it_is_put_in_the_background_slice_after_slice(scorer, stored):
    job = begin()

    backfilling.tend()

    assert waiting().filter(is_background=True, put_at=job.put_at).count() == 5
    job.refresh_from_db()
    assert (job.state, job.done, job.total) == (Job.State.RUNNING, 0, 5)


def test_what_is_checked_or_waits_for_somebody_is_left_alone(scorer, stored, customer):
    outbox.put_all([stored[0].pk])
    check_all()
    outbox.put(stored[1], now=NOW)

    job = begin()
    backfilling.tend()

    job.refresh_from_db()
    assert job.total == 3
    assert outbox.behind(job.put_at).count() == 3
    assert not stored[0].outbox_entry.is_background
    assert waiting().live().get().question == stored[1]


def test_what_an_import_put_into_the_background_goes_with_it(scorer, stored):
    outbox.put_all([q.pk for q in stored[:4]], is_background=True, now=NOW - timedelta(days=1))

    job = finish(begin())

    assert (job.done, job.total) == (5, 5)


def test_its_progress_counts_what_is_left(scorer, stored):
    job = begin()
    backfilling.tend()

    pipeline.check_waiting(limit=2)
    backfilling.tend()

    job.refresh_from_db()
    assert (job.done, job.total, job.percent) == (2, 5, 40)
    assert job.seconds_left > 0


def test_a_question_that_is_edited_meanwhile_counts_as_done(scorer, stored):
    job = begin()
    backfilling.tend()

    outbox.put(stored[0])
    backfilling.tend()

    job.refresh_from_db()
    assert (job.done, job.total) == (1, 5)


def test_a_question_asked_meanwhile_is_checked_first(scorer, stored, customer):
    begin()
    backfilling.tend()
    asked = asking.submit_question(
        product=ProductFactory(), title="Where is it", body="", audience="public", by=customer
    )

    pipeline.check_waiting(limit=16)

    assert OutboxEntry.objects.filter(settled_at__isnull=False).get().question == asked


def test_a_batch_of_the_background_gives_way_to_a_question_that_comes(
    scorer, stored, customer, monkeypatch
):
    begin()
    backfilling.tend()
    find = pipeline.find

    def find_and_somebody_asks(*args, **kwargs):
        monkeypatch.setattr(pipeline, "find", find)
        asking.submit_question(
            product=ProductFactory(), title="Where is it", body="", audience="public", by=customer
        )
        return find(*args, **kwargs)

    monkeypatch.setattr(pipeline, "find", find_and_somebody_asks)

    assert pipeline.check_waiting(limit=16) == 1
    assert waiting().filter(leased_until__isnull=False).count() == 0
    assert not waiting().filter(is_suspect=True).exists()


def test_a_batch_that_somebody_waits_for_gives_way_to_nobody(scorer, stored):
    outbox.put_all([q.pk for q in stored])

    assert pipeline.check_waiting(limit=3) == 3


def test_one_that_died_on_the_way_goes_on_and_doubles_nothing(scorer, stored):
    job = begin()
    backfilling.tend()
    held = outbox.claim(limit=2, now=timezone.now())  # and the worker is gone
    check_all()
    OutboxEntry.objects.filter(token=held[0].token).update(leased_until=NOW)
    OutboxEntry.objects.filter(token=held[1].token).update(leased_until=NOW)

    job = finish(job)

    assert (job.state, job.done) == (Job.State.DONE, 5)
    assert Flag.objects.count() == 1
    pairs = [frozenset(pair) for pair in Score.objects.values_list("older", "newer")]
    assert len(pairs) == len(set(pairs))


def test_a_question_that_cannot_be_checked_does_not_hold_it_up(scorer, stored):
    scorer.broken_by = "bell"

    job = finish(begin())

    assert (job.state, job.result["unchecked"]) == (Job.State.DONE, 1)
    assert OutboxEntry.objects.quarantined().get().question == stored[4]


def test_a_limit_puts_so_many_at_most(scorer, stored):
    job = finish(begin(limit=3))

    assert (job.done, job.total) == (3, 3)
    assert finish(begin()).total == 2


def test_a_recheck_takes_only_what_another_release_checked(scorer, stored):
    finish(begin())
    OutboxEntry.objects.filter(question=stored[0]).update(checked_by="another")

    job = finish(begin(Job.Kind.RECHECK))

    assert job.total == 1


def test_all_takes_what_the_active_release_checked_too(scorer, stored):
    finish(begin())

    assert finish(begin(Job.Kind.RECHECK, everything=True)).total == 5
    assert finish(begin(everything=True)).total == 5


def test_what_the_release_before_was_just_checking_is_checked_again(scorer, stored):
    outbox.put_all([q.pk for q in stored], is_background=True)
    (claim,) = outbox.claim(limit=1, now=timezone.now())
    OutboxEntry.objects.filter(question=stored[0]).update(is_background=False)
    job = begin(Job.Kind.RECHECK)
    backfilling.tend()
    job.refresh_from_db()
    assert job.total == 4
    with outbox.settling(claim, checked_by="another"):
        pass

    job = finish(job)

    assert job.total == 5
    assert set(OutboxEntry.objects.values_list("checked_by", flat=True)) == {
        scorer.release.fingerprint
    }


def test_a_worker_that_keeps_to_the_release_before_makes_no_recheck_endless(scorer, stored):
    finish(begin())
    scorer.release.is_active = False
    scorer.release.save()
    ReleaseFactory(is_active=True)  # which this worker refuses

    job = finish(begin(Job.Kind.RECHECK))

    assert job.done == 5
    assert set(OutboxEntry.objects.values_list("checked_by", flat=True)) == {
        scorer.release.fingerprint
    }


def test_a_pair_is_scored_once_from_whichever_side_it_is_met(scorer, stored):
    finish(begin())
    before = scorer.judged
    assert before == Score.objects.count()

    finish(begin(Job.Kind.RECHECK, everything=True))

    assert scorer.judged == before


def test_without_any_score_a_recheck_scores_each_unordered_pair_once(scorer, stored):
    finish(begin())
    Score.objects.all().delete()
    scorer.judged = 0

    finish(begin(Job.Kind.RECHECK, everything=True))

    assert scorer.judged == Score.objects.count()
    pairs = {frozenset(pair) for pair in Score.objects.values_list("older", "newer")}
    assert len(pairs) == Score.objects.count()


def test_stopped_it_leaves_nothing_behind_and_makes_nothing_unchecked(scorer, stored):
    outbox.put_all([stored[0].pk])
    check_all()
    job = begin(everything=True)
    backfilling.tend()

    jobs.stop(job=job, by=None)
    backfilling.tend()

    job.refresh_from_db()
    assert job.state == Job.State.STOPPED
    assert not waiting().exists()
    assert OutboxEntry.objects.get().question == stored[0]


def test_one_of_all_that_was_stopped_goes_on_where_it_was(scorer, stored):
    finish(begin())
    job = begin(everything=True)
    backfilling.tend()
    pipeline.check_waiting(limit=2)
    jobs.stop(job=job, by=None)
    backfilling.tend()

    again = finish(begin(everything=True))

    assert again.total == 3
    assert finish(begin(everything=True)).total == 5


def test_after_a_new_release_one_that_was_stopped_begins_anew(scorer, stored):
    finish(begin())
    job = begin(everything=True)
    backfilling.tend()
    pipeline.check_waiting(limit=2)
    jobs.stop(job=job, by=None)
    backfilling.tend()
    Release.objects.filter(pk=scorer.release.pk).update(activated_at=timezone.now())

    assert finish(begin(everything=True)).total == 5


def test_one_after_the_other_has_its_turn(scorer, stored):
    first = begin(now=NOW)
    second = begin(Job.Kind.RECHECK, everything=True, now=NOW + timedelta(seconds=1))
    backfilling.tend()
    second.refresh_from_db()
    assert second.state == Job.State.WAITING

    finish(first)
    finish(second)

    assert first.result
    assert second.result


def test_no_second_of_its_kind_begins(scorer, stored):
    begin()

    with pytest.raises(jobs.JobRuns):
        begin()


def test_it_wakes_those_who_check_and_is_no_business_of_the_training_queue(
    scorer, stored, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        begin()

    assert sent == [outbox.CHECK_TASK]
    assert not jobs.has_waiting(timezone.now() + timedelta(days=1))


def test_without_a_release_it_waits(stored):
    job = begin(Job.Kind.RECHECK)

    assert backfilling.tend() is None
    job.refresh_from_db()
    assert job.state == Job.State.WAITING


def test_a_worker_s_task_brings_it_forward(scorer, stored):
    job = begin()

    for _ in range(6):
        tasks.check_waiting()

    job.refresh_from_db()
    assert job.state == Job.State.DONE


@pytest.mark.django_db(transaction=True)
def test_workers_that_tend_it_at_once_put_each_question_once(scorer, stored):
    job, start, failed = begin(), threading.Barrier(4), []

    def work():
        start.wait()
        try:
            for _ in range(5):
                backfilling.tend()
        except Exception as error:
            failed.append(error)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    job.refresh_from_db()
    assert (failed, job.total, waiting().count()) == ([], 5, 5)


def test_its_report_counts_clusters_rather_than_pairs(scorer):
    for _ in range(3):
        QuestionFactory(title="dark lamp hums", body="")
    for _ in range(2):
        QuestionFactory(title="blue door", body="")

    result = finish(begin()).result

    assert (result["flagged"], result["likely"], result["clusters"]) == (4, 4, 2)
    assert [len(members) for members in result["largest"]] == [3, 2]
    assert set(result["largest"][0]) == set(
        Question.objects.filter(title="dark lamp hums").values_list("pk", flat=True)
    )


def flagged_otherwise(*titles, at):
    """A pair that a check of somebody's question flagged; its two are compared already."""
    older, newer = (QuestionFactory(title=title, body="") for title in titles)
    outbox.put_all([older.pk, newer.pk])
    OutboxEntry.objects.filter(question__in=[older, newer]).update(settled_at=at)
    return FlagFactory(older=older, newer=newer, probability=0.99, flagged_at=at)


def test_its_report_counts_only_what_its_own_checks_found(scorer, customer):
    flagged_otherwise("red hat", "hot cup", at=NOW - timedelta(days=1))
    for title in ("blue door", "blue door", "dark lamp hums", "dark lamp hums"):
        QuestionFactory(title=title, body="")
    job = begin()
    backfilling.tend()
    flagged_otherwise("new sun", "old moon", at=timezone.now())
    for _ in range(2):
        asking.submit_question(
            product=ProductFactory(), title="old key", body="", audience="public", by=customer
        )

    result = finish(job).result

    assert Flag.objects.count() == 5
    assert (result["questions"], result["unchecked"]) == (4, 0)
    assert (result["flagged"], result["likely"], result["open"]) == (2, 2, 2)
    assert (result["clusters"], result["pairs"]) == (2, 2)


def test_a_job_that_found_nothing_to_compare_reports_nothing(scorer, stored, customer):
    finish(begin())
    job = begin()
    backfilling.tend()
    FlagFactory(probability=0.99)
    asking.submit_question(
        product=ProductFactory(), title="old key", body="", audience="public", by=customer
    )

    result = finish(job).result

    assert Flag.objects.open().count() > 1
    assert {name: result[name] for name in ("questions", "flagged", "likely", "open")} == {
        "questions": 0, "flagged": 0, "likely": 0, "open": 0,
    }  # fmt: skip
    assert (result["clusters"], result["largest"]) == (0, [])


def test_a_question_that_could_not_be_compared_is_not_counted_as_compared(scorer, stored):
    scorer.broken_by = "bell"

    result = finish(begin()).result

    assert (result["questions"], result["unchecked"]) == (4, 1)


def test_a_recheck_counts_no_pair_that_was_flagged_before(scorer, stored):
    finish(begin())
    Flag.objects.update(flagged_at=NOW - timedelta(days=1))

    result = finish(begin(Job.Kind.RECHECK, everything=True)).result

    assert (result["questions"], result["flagged"], result["clusters"]) == (5, 0, 0)


def test_what_is_hardly_likely_joins_no_cluster():
    FlagFactory(probability=0.85)

    assert backfilling.clusters(Flag.objects.all()) == []


def test_components_are_what_edges_join():
    edges = [(1, 2), (5, 6), (2, 3), (9, 8), (3, 1)]

    assert backfilling.components(edges) == [[1, 2, 3], [5, 6], [8, 9]]


def test_an_estimate_measures_some_of_what_is_to_be_done(scorer, stored):
    cost = backfilling.estimate(Job(kind=Job.Kind.BACKFILL), release=scorer.release, scorer=scorer)

    assert (cost.questions, cost.pairs) == (5, 20)
    assert 0 < cost.minutes < 1
    assert not Score.objects.exists()


def test_an_estimate_of_nothing_is_nothing(scorer):
    cost = backfilling.estimate(Job(kind=Job.Kind.BACKFILL), release=scorer.release, scorer=scorer)

    assert (cost.questions, cost.pairs, cost.seconds) == (0, 0, 0.0)


def test_the_command_checks_here_where_no_worker_runs(scorer, stored, capsys):
    said = told("backfill", "--here", capsys=capsys)

    assert "5 questions, at most 20 pairs" in said
    assert "5 of 5 checked" in said
    assert "1 pairs flagged" in said


def test_the_command_says_nothing_but_json_to_programs(scorer, stored, capsys):
    found = json.loads(told("backfill", "--here", "--json", capsys=capsys))

    assert (found["state"], found["done"], found["flagged"]) == ("done", 5, 1)


def test_where_nothing_is_to_be_done_it_ends_at_once(scorer, capsys):
    assert "0 of 0 checked" in told("backfill", "--here", capsys=capsys)


def test_the_command_goes_on_with_one_that_was_begun(scorer, stored, capsys):
    begin(limit=2)

    said = told("backfill", "--here", capsys=capsys)

    assert "2 of 2 checked" in said
    assert Job.objects.count() == 1


def test_the_command_stops_and_reports(scorer, stored, capsys):
    told("backfill", "--no-wait", capsys=capsys)
    assert waiting().count() == 5

    assert "Stopped, 0 of 5" in told("backfill", "--stop", capsys=capsys)
    assert not waiting().exists()
    found = json.loads(told("backfill", "--report", "--json", capsys=capsys))
    assert (found["state"], found["flagged"], found["largest"]) == ("stopped", 0, [])


def test_interrupted_the_command_leaves_the_rest_to_the_workers(
    scorer, stored, capsys, monkeypatch
):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "check_batch", interrupt)

    said = told("backfill", "--here", capsys=capsys)

    assert "5 questions are left to the workers" in said
    assert waiting().count() == 5


def test_there_is_no_report_of_what_never_was():
    with pytest.raises(CommandError, match="no recheck"):
        call_command("recheck", "--report")


def test_texts_are_compared_as_they_stand(scorer, stored):
    finish(begin())

    assert {row.older_hash for row in Score.objects.filter(older=stored[0])} == {
        text_of(stored[0]).hash
    }
