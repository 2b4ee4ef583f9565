"""The page of thresholds: what comes of a slide is there at once, with and without a script."""

import os
import random
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from dedup.models import Flag, Score
from dedup.texts import text_of
from support.models import OutboxEntry
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, ReleaseFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def month(agent, bells):
    """A month of questions with their pairs, of which people judged some."""
    chance, now = random.Random(4), timezone.now()
    release = ReleaseFactory(
        is_active=True, threshold=0.4, sure_threshold=0.7, suggestion_floor=0.05
    )
    products = [ProductFactory(slug="lamp"), ProductFactory(slug="radio")]
    older = QuestionFactory(asked_at=now - timedelta(days=90), asked_by=agent)
    for n in range(120):
        asked_at = now - timedelta(days=n % 29, hours=1)
        newer = QuestionFactory(
            asked_at=asked_at, product=products[n % 3 == 0], language="en", asked_by=agent
        )
        OutboxEntry.objects.create(question=newer, settled_at=now, checked_by="f" * 64)
        p = chance.random()
        hashes = {"older_hash": text_of(older).hash, "newer_hash": text_of(newer).hash}
        said = {"older": older, "newer": newer, "release": release, "probability": p, **hashes}
        Score.objects.create(**said, logit=1.0, cosine=0.5)
        if p < 0.4:
            continue
        is_same = chance.random() < p + 0.15
        verdict = Flag.Status.CONFIRMED if is_same else Flag.Status.DISMISSED
        status = Flag.Status.OPEN if n % 9 == 0 else verdict
        flag = FlagFactory(**said, status=status)
        if status == verdict:
            flag.reviews.create(
                verdict=verdict, by=agent, probability=p, release=release.name, **hashes
            )
    return release


def keep_picture(page, name):
    """For somebody who wants to look: ASKONCE_PICTURES names a folder."""
    if folder := os.environ.get("ASKONCE_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def slide(page, value):
    page.locator("#at").evaluate(
        "(at, to) => { at.value = to; at.dispatchEvent(new Event('input', {bubbles: true})); }",
        str(value),
    )


def test_sliding_shows_what_would_come_of_it_and_moving_does_it(visit, admin, month):
    visitor = visit(admin)
    visitor.open("/manage/thresholds/")
    page = visitor.page
    assert "where it stands" in page.inner_text("#what")

    slide(page, 60)
    page.wait_for_selector("#consequences[data-at='60.0']")

    assert float(page.input_value("#number")) == 60
    assert "leave the queue at once" in page.inner_text("#consequences")
    keep_picture(page, "slid")
    page.fill("#reason", "Too many wrong ones")
    page.click("text=Move to 60.0 %")
    page.wait_for_selector("text=Moved to 60.0 %.")
    month.refresh_from_db()
    assert month.threshold == 0.6
    assert "Too many wrong ones" in page.inner_text("main")
    page.click("button:has-text('Take back')")
    page.wait_for_selector("text=Moved back to")
    month.refresh_from_db()
    assert month.threshold == 0.4
    for width in (1280, 390):
        for look in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=look)
            visitor.open("/manage/thresholds/?which=flag&at=50")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            keep_picture(page, f"{width}-{look}")


def test_without_a_script_a_form_shows_it_and_another_moves_it(visit, admin, month):
    visitor = visit(admin, java_script_enabled=False)
    visitor.open("/manage/thresholds/?which=sure")
    page = visitor.page
    page.fill("#number", "80")
    page.click("#slider button")
    assert "What would come of 80.0 %" in page.inner_text("#what")
    page.click("button:has-text('Move to 80.0 %')")

    month.refresh_from_db()
    assert month.sure_threshold == 0.8
