import pytest
from django.utils import timezone
from dedup.models import Report, Job
from support.models import OutboxEntry
from tests.factories import ReleaseFactory, QuestionFactory
from tests.dedup.test_gates import report
from tests.dedup.folders import write_release
from dedup import releases
from support import outbox
from tests.browser.test_pages import complaints, shown
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

def test_pic(visit, admin, tmp_path, settings):
    settings.DEDUP_ARTIFACTS = tmp_path
    a = releases.activate(release=releases.add(write_release(tmp_path, "minilm-l6-2").name), by=admin)
    b = releases.add(write_release(tmp_path, "minilm-l6-20261128-1").name)
    c = releases.activate(release=releases.add(write_release(tmp_path, "minilm-l6-20261127-1").name), by=admin)
    c.overruled = "We have a faster machine from Monday on."; c.save()
    fig = report()
    f = {"value": 0.812, "low": 0.77, "high": 0.85}
    fig["own"]["figures"] = {"average_precision": f, "recall": {"value": 0.64, "low": 0.55, "high": 0.71}}
    fig["own"]["leads"]["average_precision"] = {"value": -0.05, "low": -0.09, "high": -0.01}
    fig["fingerprint"] = b.fingerprint
    Report.objects.create(release=b, against=c, figures=fig)
    releases.shadow(release=b, by=admin)
    outbox.put(QuestionFactory()); OutboxEntry.objects.update(settled_at=timezone.now(), checked_by="x")
    Job.objects.create(kind="train", state="running", done=30, total=100, step="reading the pairs", seconds_left=300, by=admin)
    v = visit(admin, reduced_motion="reduce")
    wrong = []
    for name, path in (("list", "/manage/releases/"), ("gates", f"/manage/releases/{b.pk}/promote/"), ("back", "/manage/releases/back/"), ("own", f"/manage/releases/{c.pk}/")):
        v.open(path)
        for w, s in ((1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")):
            wrong += [f"{path} {w} {s}: {x}" for x in complaints(shown(v.page, w, s))]
            v.page.screenshot(path=f"/root/w/pic/promote/{name}-{w}-{s}.png", full_page=True)
    print(wrong)
    assert not wrong
