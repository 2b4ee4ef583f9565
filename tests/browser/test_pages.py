"""Every page: for everybody's eyes and hands, light and dark, on a phone, and light to load."""

import gzip
import os
from itertools import product
from random import Random

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from dedup import blind, deflection, desk, embedding, review
from dedup.ml.artifact import read_manifest
from dedup.models import BlindItem, Flag, Job, Release, Report
from dedup.texts import text_of
from support import guests, mailing, merging, outbox
from support.models import GuestRequest, OutboxEntry, Question
from tests.dedup.measured import figures
from tests.dedup.watched import live_a_while
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    QuestionFactory,
    ReleaseFactory,
    SubscriptionFactory,
    VoteFactory,
)
from tests.fakes import FakeScorer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

WIDTHS = (1280, 390)
ALL = [*product(WIDTHS, ("light", "dark"))]
# From right to left CI takes two opposite looks of the four; a release is preceded by all.
LOOKS = {"en": ALL, "ar": ALL if "ASKONCE_ROUNDS" in os.environ else [ALL[0], ALL[-1]]}
MOST_BYTES = 45_000  # script and style of a first page, as they travel
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft?"

UNFOLD = "document.querySelectorAll('main details').forEach((one) => { one.open = true; })"
UNFIT = """() => {
  const wide = document.documentElement.scrollWidth;
  const found = wide > innerWidth ? [`${wide} pixels wide on a phone`] : [];
  for (const one of document.querySelectorAll("button, .button, summary, nav a, select")) {
    const { height } = one.getBoundingClientRect();
    if (one.checkVisibility() && height < 44) found.push(`${one.textContent}: ${height} high`);
  }
  return found;
}"""

axe = Axe()


def stop_path(person, question):
    """The page by which mail about a question ends."""
    return reverse("unsubscribe", args=[mailing.token(mailing.STOP, person.pk, question.pk)])


def judge_many_blindly(person, by):
    """Twelve pairs that one decided and the other judged, and one the other way round."""
    release = ReleaseFactory()
    for i in range(12):
        flag = FlagFactory(release=release)
        review.dismiss(flag=flag, by=by)
        verdict = "confirmed" if i == 0 else "related"
        given = {"expected": "dismissed", "verdict": verdict, "decided_at": timezone.now()}
        BlindItem.objects.create(flag=flag, by=person, asked_share=0.1, **given)
    review.dismiss(flag=FlagFactory(release=release), by=person)
    item = blind.draw(by, chance=Random(1), now=timezone.now())
    blind.answer(item=item, verdict="dismissed", by=by)


def deflect_many(question, by):
    """Twelve times of asking, some solved, and one that was asked after all."""
    now = timezone.now()
    for number in range(12):
        product = question.product if number else None
        asking = deflection.note_shown(asking=None, count=2, product=product, by=by, now=now)
        if number > 6:
            deflection.note_opened(asking=asking, now=now)
            deflection.note_solved(asking=asking, question=question, by=by, now=now)
    deflection.note_asked(asking=asking, solved=[], question=question, by=None, now=now)


def long_work(by):
    """Addresses of jobs in all their states."""
    now = timezone.now()
    labels = {"train": 812, "implied": 40, "replayed": 1600, "tune": 170, "hold": 168}
    made = {
        "release": "minilm-l6-2-20261128-1",
        "release_id": 1,
        "labels": labels,
        "average_precision": 0.91,
        "average_precision_before": 0.84,
        "basis": "promised",
    }
    half = {"done": 120, "total": 260, "seconds_left": 400.0, "started_at": now, "seen_at": now}
    jobs = [
        Job.objects.create(kind="train", state="done", by=by, result=made, ended_at=now),
        Job.objects.create(kind="train", state="running", step="training, loss 0.2", **half),
        Job.objects.create(kind="evaluate", state="running", by=by, started_at=now, seen_at=now,
                           step="reading the verdicts", is_to_stop=True, attempts=2),
        Job.objects.create(kind="adopt", by=by),
        Job.objects.create(kind="train", state="failed", ended_at=now, failure=LONG),
        Job.objects.create(kind="train", state="stopped", ended_at=now),
    ]  # fmt: skip
    return ["/manage/jobs/", *(f"/manage/jobs/{job.pk}/" for job in jobs)]


def release_pages():
    """Addresses of a release that was measured, of its card, and of one that was not."""
    shipped = read_manifest(settings.DEDUP_ARTIFACTS / settings.DEDUP_RELEASE)
    known = {"fingerprint": shipped.fingerprint, "manifest": shipped.raw}
    measured, _ = Release.objects.update_or_create(name=shipped.name, defaults=known)
    other = ReleaseFactory(name=LONG[:90])
    Report.objects.create(release=measured, figures=figures(), folder="lamps-1-2026-11-28-101010")
    page = f"/manage/releases/{measured.pk}/"
    return [page, f"{page}card/", f"/manage/releases/{other.pk}/"]


def links_for_guests(question):
    """Addresses as in mails to guests: of a question, of a following, of nothing any more."""
    common = {"email": f"{'a' * 60}@example.org", "product": question.product}
    asked = GuestRequest.objects.create(kind="question", title=LONG, body="> quoted", **common)
    follow = GuestRequest.objects.create(kind="follow", question=question, **common)
    gone = GuestRequest(pk=10**9)
    return [f"/confirm/{guests.token(waiting)}/" for waiting in (asked, follow, gone)]


@pytest.fixture
def lived_in(customer, agent, admin):
    """A portal with everything that pages know how to show; returns addresses by role."""
    older = QuestionFactory(title="Where is the **switch**?", asked_by=customer)
    newer = QuestionFactory(title=f"Switch? {LONG}", body=f"```\n{'x' * 300}\n```\n\n| a | b |")
    answer = AnswerFactory(question=newer, body=f"1. Left\n2. {LONG}")
    VoteFactory(question=older, by=agent)
    SubscriptionFactory(question=newer, subscriber=customer)
    edge = merging.merge(duplicate=newer, canonical=older, by=admin, reason="The same switch.")
    unchecked = QuestionFactory(audience="private", asked_by=customer, body="> quoted\n\n`code`")
    outbox.put(unchecked, now=timezone.now() - timezone.timedelta(hours=1))
    OutboxEntry.objects.update(quarantined_at=timezone.now(), failure="FloatingPointError")
    waiting = QuestionFactory(asked_by=customer)
    outbox.put(waiting, now=timezone.now() - timezone.timedelta(hours=1))
    open_pair = FlagFactory(older=older, newer=waiting)
    private_pair = FlagFactory(older=older, newer=unchecked, probability=0.99)
    decided = FlagFactory(probability=0.97)
    review.confirm(flag=decided, canonical=decided.older, by=agent)
    low = FlagFactory(lane=Flag.Lane.SAMPLED, probability=0.3)
    AnswerFactory(question=low.older)
    review.dismiss(flag=FlagFactory(), by=admin)
    case = blind.draw(agent, chance=Random(1), now=timezone.now()).flag
    agent.display_name = LONG[:60]
    agent.save(update_fields=["display_name"])
    judge_many_blindly(agent, admin)
    disputed = desk.dispute(question=newer, by=newer.asked_by, reason=f"Mine is {LONG}")
    review.skip(flag=FlagFactory(), by=agent)
    deflect_many(older, customer)
    works = long_work(admin)
    live_a_while(now=timezone.now(), by=agent, other=admin)
    embedding.renew([text_of(one) for one in Question.objects.all()], scorer=FakeScorer())
    Release.objects.update(is_active=False)
    ReleaseFactory(name=LONG[:60].lower(), is_active=True, previous=open_pair.release,
                   activated_by=agent, activated_at=timezone.now(), overruled=LONG)  # fmt: skip
    kept_out = ReleaseFactory(shadow_since=timezone.now())
    return {
        None: ["/", "/?q=switch", "/?q=nothing+at+all", "/?q=switch&state=answered",
               "/accounts/login/", "/accounts/signup/",
               "/accounts/login/code/", "/accounts/password/reset/", older.get_absolute_url(),
               "/ask/", "/confirm/", *links_for_guests(older), "/nowhere/", "/guides/",
               "/guides/?q=merge", "/guides/?q=xylophone", "/guides/customers/asking/",
               "/guides/operators/settings/", stop_path(customer, newer)],
        customer: ["/ask/", "/ask/?title=Where+is+my+switch", "/mine/",
                   f"{older.get_absolute_url()}?duplicate={newer.pk}", "/accounts/email/",
                   f"{older.get_absolute_url()}edit/", "/accounts/password/change/", "/review/",
                   "/accounts/2fa/", "/accounts/2fa/totp/activate/", "/accounts/logout/",
                   "/account/", "/account/export/", "/account/erase/", "/accounts/sessions/",
                   "/accounts/2fa/webauthn/", "/accounts/2fa/webauthn/add/",
                   "/accounts/reauthenticate/"],
        agent: ["/review/", "/review/?band=likely&who=free", f"/review/{open_pair.pk}/",
                f"/review/{private_pair.pk}/", f"/review/{low.pk}/", f"/review/{case.pk}/",
                f"/review/{open_pair.pk}/cluster/",
                f"/review/{decided.pk}/", f"/review/{disputed.pk}/", older.get_absolute_url(),
                unchecked.get_absolute_url(), waiting.get_absolute_url(), "/account/"],
        admin: ["/manage/merges/", "/manage/agreement/", "/manage/deflection/",
                "/manage/releases/", f"/manage/releases/{kept_out.pk}/promote/",
                "/manage/releases/back/", *works, *release_pages(),
                "/manage/thresholds/", "/manage/thresholds/?which=flag&at=60",
                "/manage/thresholds/?which=suggest&at=30",
                "/manage/monitoring/?days=90", "/manage/report/",
                f"/manage/merge/{waiting.pk}/{older.pk}/",
                f"/manage/merge/{unchecked.pk}/{older.pk}/", f"/manage/unmerge/{edge.pk}/",
                f"{answer.question.get_absolute_url()}#answer-{answer.pk}"],
    }  # fmt: skip


def complaints(page):
    """What axe finds on a page, in words."""
    page.wait_for_load_state("load")  # without its style nothing can be seen
    found = axe.run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for one in found
        for node in one["nodes"]
    ]


def unfit_for_a_phone(page):
    """What is too wide for a phone, or too low for a thumb."""
    page.set_viewport_size({"width": 390, "height": 844})
    found = page.evaluate(UNFIT)
    page.set_viewport_size({"width": 1280, "height": 900})
    return found


def test_every_page_is_accessible_light_and_dark_wide_and_narrow_in_both_directions(
    visit, lived_in, record_property
):
    wrong, looks = [], 0
    for (person, addresses), language in product(lived_in.items(), LOOKS):
        visitor = visit(person, reduced_motion="reduce", locale=language)
        visitor.expected |= {403, 404, 410}
        for address in addresses:
            visitor.open(address)
            assert visitor.page.evaluate("document.documentElement.lang") == language
            visitor.page.evaluate(UNFOLD)
            for look in LOOKS[language]:
                found = complaints(shown(visitor.page, *look))
                wrong += [f"{address}, {language}, {look}: {one}" for one in found]
                looks += 1
            found = unfit_for_a_phone(shown(visitor.page, 1280, "light"))
            wrong += [f"{address}, {language}: {one}" for one in found]
    record_property("looks", looks)

    assert wrong == [], "\n".join(wrong)


def shown(page, width, scheme):
    """The page as somebody else has it before them."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    return page


def test_menus_overlays_and_a_preview_of_many_are_accessible_and_fit_a_phone(visit, agent):
    flags = [FlagFactory(probability=p) for p in (0.9, 0.8)]
    older, newer = flags[0].older, flags[0].newer
    flags[0].older_hash, flags[0].newer_hash = text_of(older).hash, text_of(newer).hash
    flags[0].alignment = [["bulb", 0, "bulb", 0, 0.9], ["dark", 0, "dark", 0, 0.9]]
    flags[0].save()
    visitor = visit(agent, reduced_motion="reduce")
    visitor.open(f"/review/{flags[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    wrong = []
    for key in ("a", "h", "f", "?", "Control+k"):
        visitor.page.keyboard.press("Escape")
        visitor.page.locator("h1").first.focus()
        visitor.page.keyboard.press(key)
        if key == "a":
            visitor.page.locator("[data-word]").last.hover()
        for scheme in ("light", "dark"):
            visitor.page.emulate_media(color_scheme=scheme)
            wrong += [f"{key}, {scheme}: {one}" for one in complaints(visitor.page)]
        wrong += [f"{key}: {one}" for one in unfit_for_a_phone(visitor.page)]
    visitor.open("/review/")
    for flag in flags:
        visitor.page.locator(f"input[name=flag][value='{flag.pk}']").check()
    visitor.page.get_by_role("button", name="Duplicates …").first.click()
    wrong += complaints(visitor.page) + unfit_for_a_phone(visitor.page)

    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("address", ["/", "/ask/"])
def test_a_first_page_is_light(visit, lived_in, customer, address):
    visitor = visit(customer)
    visitor.open(address)
    visitor.page.wait_for_load_state("networkidle")

    sizes = {path: len(gzip.compress(one.body())) for path, one in visitor.files.items()}
    assert any(path.endswith("askonce.css") for path in sizes)
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_a_keyboard_reaches_the_content_first(visit):
    guest = visit()
    guest.open("/")
    guest.page.keyboard.press("Tab")
    assert guest.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    guest.page.keyboard.press("Enter")

    assert guest.page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize(
    "offence",
    [
        "console.error('broken')",
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">red</p>')",
        "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
        "document.body.append(Object.assign(new Image(), {src: 'http://other.example/a.png'}))",
    ],
)
def test_these_tests_notice_what_must_not_happen(visit, offence):
    guest = visit()
    guest.open("/")
    with guest.page.expect_console_message():
        guest.page.evaluate(offence)

    assert guest.wrong
    guest.wrong.clear()
