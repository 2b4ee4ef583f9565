"""Everything that people read is there in each language, and says the same."""

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from dedup import deflection, desk, review
from support import guests, mailing, merging, outbox
from support.models import OutboxEntry
from support.templatetags.texts import languages, percent, when
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, SubscriptionFactory

ROOT = Path(__file__).resolve().parents[1]
LOCALE = ROOT / "support" / "locale"
CODES = ("de", "ar")
FORMS = {"de": 2, "ar": 6}
CATALOGUES = sorted(LOCALE.glob("**/django.po"))
EXTRACT = ["makemessages", "--locale", "de", "--locale", "ar", "--no-obsolete",
           "--add-location", "file", "--ignore", "tests", "--ignore", "staticfiles"]  # fmt: skip
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sdr]|\{\w*\}")
NUMBERS = {"%(count)s", "%(count)d", "%(counter)s", "%(minutes)d", "%(times)s"}
NAMED_ENGLISH = re.compile(r'(?s)<(?!html)(\w+)[^>]* lang="en"[^>]*>.*?</\1>')
NO_GETTEXT = "What the code says can only be listed with gettext: apt-get install gettext"


def read(path):
    with path.open("rb") as file:
        return read_po(file)


def named(path):
    return str(path.relative_to(LOCALE).parents[1])


def texts(value):
    """One text, or all its plural forms."""
    return (value,) if isinstance(value, str) else tuple(value)


def messages(catalogue):
    return [message for message in catalogue if message.id]


def main_catalogue(code):
    return read(LOCALE / code / "LC_MESSAGES" / "django.po")


def test_each_language_that_is_offered_has_a_catalogue():
    offered = {code for code, _name in settings.LANGUAGES} - {settings.LANGUAGE_CODE}

    assert offered == {path.parents[1].name for path in LOCALE.glob("*/LC_MESSAGES/django.po")}
    assert offered == set(CODES)


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_no_text_is_without_words_or_unsure(path):
    found = messages(read(path))

    assert found
    assert [m.id for m in found if not all(texts(m.string))] == []
    assert [m.id for m in found if m.fuzzy] == []


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_each_number_has_all_forms_that_its_language_tells_apart(path):
    forms = FORMS[path.parents[1].name]
    counted = [m for m in messages(read(path)) if m.pluralizable]

    assert [m.id for m in counted if len(texts(m.string)) != forms] == []
    assert read(path).num_plurals == forms


def unlike(message):
    """Whether a translation leaves out or makes up a placeholder or a tag.

    A form for a single number ("one answer", "two answers") may do without that number.
    """
    wanted = set(PLACEHOLDER.findall(texts(message.id)[-1]))
    tags = sorted(re.findall(r"</?\w+", texts(message.id)[-1]))
    for place, form in enumerate(texts(message.string)):
        lacking = wanted - set(PLACEHOLDER.findall(form))
        is_single = message.pluralizable and place < len(texts(message.string)) - 1
        allowed = NUMBERS if is_single and place < 3 else set()
        if set(PLACEHOLDER.findall(form)) - wanted or lacking - allowed:
            return True
        if sorted(re.findall(r"</?\w+", form)) != tags and not (is_single and place == 0):
            return True
    return False


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_a_translation_has_the_placeholders_and_the_tags_of_its_text(path):
    assert [m.id for m in messages(read(path)) if unlike(m)] == []


def test_a_translation_that_loses_a_name_is_noticed():
    (message, *_) = [m for m in messages(main_catalogue("ar")) if "%(title)s" in m.id]
    message.string = message.string.replace("%(title)s", "%(titel)s")

    assert unlike(message)


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_what_is_compiled_is_what_is_written(path):
    with path.with_suffix(".mo").open("rb") as file:
        compiled = {texts(m.id): texts(m.string) for m in messages(read_mo(file))}

    assert compiled == {texts(m.id): texts(m.string) for m in messages(read(path))}


def test_every_text_of_the_code_is_in_the_catalogues_and_nothing_else(tmp_path):
    if not shutil.which("xgettext"):
        pytest.skip(NO_GETTEXT)
    for name in ("support", "dedup", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=only_texts)
    shutil.copy(ROOT / "manage.py", tmp_path)
    command = [sys.executable, "manage.py", *EXTRACT]
    environment = {"SECRET_KEY": "x" * 50, "DEBUG": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for code in CODES:
        fresh = read(tmp_path / "support" / "locale" / code / "LC_MESSAGES" / "django.po")
        said = {(m.context, m.id) for m in messages(fresh)}

        assert said == {(m.context, m.id) for m in messages(main_catalogue(code))}, code


def only_texts(folder, names):
    """What need not be copied to find the texts of the code."""
    kept = {".py", ".html", ".txt", ".po", ""}
    left_out = {"artifacts", "clusters", "__pycache__", "static", "docs"}
    return [name for name in names if Path(name).suffix not in kept or name in left_out]


class Visible(HTMLParser):
    """What a person sees or hears of a page, each piece by itself."""

    SPOKEN = ("aria-label", "placeholder", "title", "alt")

    def __init__(self, page):
        super().__init__()
        self.pieces, self.silent = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.silent += tag in {"script", "style"}
        self.pieces += [value for name, value in attrs if name in self.SPOKEN and value]

    def handle_endtag(self, tag):
        self.silent -= tag in {"script", "style"}

    def handle_data(self, data):
        if not self.silent and data.strip():
            self.pieces.append(data)


def known_texts(code):
    """Patterns of English texts of more than one word that have other words in a language."""
    found = {}
    for message in messages(main_catalogue(code)):
        for text in texts(message.id):
            for part in re.split(r"<[^>]+>|\n", text):
                plain = html.unescape(part).replace("%%", "%").strip()
                words = re.findall(r"[A-Za-z]{2,}", PLACEHOLDER.sub("", plain))
                if len(words) > 1 and part not in "".join(texts(message.string)):
                    pieces = map(re.escape, re.split(PLACEHOLDER, plain))
                    found[plain] = re.compile(r"(?s)\A\W*" + ".+?".join(pieces) + r"\W*\Z")
    return found


def english(page, known):
    """What a page says in English without naming it so, as it names a guide not translated yet."""
    pieces = [" ".join(piece.split()) for piece in Visible(NAMED_ENGLISH.sub("", page)).pieces]
    return sorted({text for text, like in known.items() for one in pieces if like.match(one)})


def waiting_for_a_click(question):
    """Addresses in mails to somebody without an account."""
    given = {"email": f"gast{question.pk}@example.com", "client": "", "now": timezone.now()}
    asked = {"title": "Zu laut?", "body": "", "product": question.product}
    put = [guests.put_follow(question=question, **given)]
    put += [guests.put_question(audience=audience, **asked, **given)
            for audience in ("public", "private")]  # fmt: skip
    return [reverse("confirm", args=[guests.token(one)]) for one in put]


@pytest.fixture
def lived_in(customer, agent, admin):
    """A portal with something on every page; returns addresses by who looks at them."""
    older = QuestionFactory(title="Wo ist es?", asked_by=customer, product__name="Lampe")
    newer = QuestionFactory(title="Der Schalter?")
    AnswerFactory(question=newer, body="Links.")
    SubscriptionFactory(question=newer, subscriber=customer)
    edge = merging.merge(duplicate=newer, canonical=older, by=admin)
    private = QuestionFactory(title="Geheim?", audience="private", asked_by=customer)
    outbox.put(private, now=timezone.now() - timezone.timedelta(hours=1))
    OutboxEntry.objects.update(quarantined_at=timezone.now(), failure="Error")
    waiting = QuestionFactory(title="Wartet?", asked_by=customer)
    outbox.put(waiting, now=timezone.now())
    pair = FlagFactory(older=older, newer=waiting)
    FlagFactory(newer=waiting, probability=0.96)
    across = FlagFactory(older=older, newer=private, probability=0.99)
    decided = FlagFactory(probability=0.97)
    review.confirm(flag=decided, canonical=decided.older, by=agent)
    disputed = desk.dispute(question=newer, by=newer.asked_by, reason="Anders.")
    unsure = FlagFactory(older__language="zh")
    review.ask_second_opinion(flag=unsure, by=agent, note="?")
    thread, now = older.get_absolute_url(), timezone.now()
    seen = deflection.note_shown(asking=None, count=2, product=older.product, by=None, now=now)
    deflection.note_solved(asking=seen, question=older, by=None, now=now)
    stop = [reverse("unsubscribe", args=[mailing.token(mailing.STOP, customer.pk, pk)])
            for pk in (older.pk, mailing.ALL)]  # fmt: skip
    return {
        None: ["/", "/?q=Schalter", "/?q=xy", "/?q=Nirgends&state=open", "/accounts/login/",
               "/accounts/login/code/", "/accounts/signup/", thread, "/ask/", "/confirm/",
               *waiting_for_a_click(older), "/accounts/password/reset/", "/nowhere/", *stop,
               "/guides/", "/guides/?q=xqzv", "/guides/?q=E-Mail", "/guides/customers/asking/"],
        customer: ["/ask/", "/mine/", f"{thread}?duplicate={newer.pk}", f"{thread}edit/",
                   "/accounts/email/", "/accounts/password/change/", "/accounts/2fa/",
                   "/accounts/logout/", "/accounts/2fa/totp/activate/", "/review/"],
        agent: ["/review/", "/review/?band=likely&who=free", "/review/?age=day",
                f"/review/{pair.pk}/", f"/review/{pair.pk}/cluster/", f"/review/{across.pk}/",
                f"/review/{decided.pk}/", f"/review/{disputed.pk}/", f"/review/{unsure.pk}/",
                private.get_absolute_url(), waiting.get_absolute_url(), thread],
        admin: ["/manage/deflection/", f"/manage/deflection/?days=7&product={older.product.slug}",
                f"/manage/deflection/?product={newer.product.slug}",
                "/manage/merges/", "/manage/agreement/", f"/manage/unmerge/{edge.pk}/",
                f"/manage/merge/{waiting.pk}/{older.pk}/",
                f"/manage/merge/{private.pk}/{older.pk}/", thread],
    }  # fmt: skip


def reader(code, person=None):
    """The browser of somebody who reads this language."""
    client = Client(headers={"accept-language": code}, raise_request_exception=False)
    if person:
        client.force_login(person)
    return client


def shown(code, person, address):
    return reader(code, person).get(address, follow=True).content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("code", CODES)
def test_no_page_says_in_english_what_has_other_words(code, lived_in):
    known = known_texts(code)
    assert len(known) > 300
    left = []
    for person, addresses in lived_in.items():
        for address in addresses:
            page = shown(code, person, address)
            assert f'lang="{code}"' in page
            left += [f"{address}: {text}" for text in english(page, known)]

    assert left == []


@pytest.mark.django_db
@pytest.mark.parametrize("code", CODES)
def test_a_link_that_confirms_is_mailed_in_the_language_of_who_asked_for_it(code, mailoutbox):
    said = {}
    for language in ("en", code):
        mailoutbox.clear()
        with translation.override(language):
            waiting_for_a_click(QuestionFactory())
        assert guests.send_due(now=timezone.now()) == 3
        said[language] = {one for mail in mailoutbox for one in sentences(mail)}

    assert {"Please confirm your question", "The page is there for 3 days."} <= said["en"]
    assert len(said[code]) > 5
    assert not said[code] & said["en"]


def sentences(mail):
    found = re.split(r"(?<=[.:?]) |\n", f"{mail.subject}\n{mail.body}")
    return [one.strip() for one in found if one.strip() and "://" not in one]


@pytest.mark.django_db
def test_these_tests_see_english_where_it_stands(lived_in, customer):
    known, seen = known_texts("de"), set()
    for person, addresses in lived_in.items():
        for address in addresses:
            seen |= set(
                english(reader("en", person).get(address, follow=True).content.decode(), known)
            )

    assert {"Ask a question", "What do you want to know?", "Skip to the content"} <= seen
    assert len(seen) > 120


@pytest.mark.django_db
def test_a_language_is_chosen_below_every_page_without_javascript_and_stays(client):
    page = client.get("/?state=open").content.decode()
    assert '<html lang="en" dir="ltr">' in page
    assert re.search(r'name="language" value="ar" lang="ar"[^>]*>العربيّة<', page)

    chosen = client.post(reverse("set_language"), {"language": "ar", "next": "/?state=open"})

    assert chosen["Location"] == "/?state=open"
    assert '<html lang="ar" dir="rtl">' in client.get("/mine/", follow=True).content.decode()


@pytest.mark.django_db
def test_choosing_a_language_leads_to_no_other_site(client):
    way = {"language": "de", "next": "https://elsewhere.example/"}

    assert client.post(reverse("set_language"), way)["Location"] == "/"


@pytest.mark.django_db
def test_a_browser_that_asks_for_a_language_gets_it_and_for_an_unknown_one_english(client):
    asked = {"de-AT,de;q=0.9": "de", "ar-EG": "ar", "fi": "en", "fi,ar;q=0.5": "ar"}

    for header, code in asked.items():
        page = client.get("/", headers={"accept-language": header})
        assert f'<html lang="{code}"' in page.content.decode(), header


@pytest.mark.django_db
@pytest.mark.parametrize("code", CODES)
def test_a_refusal_is_in_the_language_of_who_reads_it(code, customer):
    said = {"de": "Das Formular enthält ein NUL-Zeichen.", "ar": "يحتوي النموذج على الرمز NUL."}
    refused = reader(code, customer).post("/ask/", {"title": "a\0b"})

    assert refused.status_code == 400
    assert said[code] in refused.content.decode()
    assert f'<html lang="{code}" dir="{"rtl" if code == "ar" else "ltr"}">' in (
        refused.content.decode()
    )


@pytest.mark.django_db
def test_a_host_that_is_not_ours_is_refused_in_the_readers_language():
    refused = reader("de").get("/", headers={"host": "elsewhere.example"})

    assert refused.status_code == 400
    assert "Diese Anfrage kann nicht beantwortet werden." in refused.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("code", CODES)
def test_programs_read_english_whatever_they_ask_for(code, admin, customer):
    client = reader(code, admin)
    private, public = QuestionFactory(audience="private"), QuestionFactory()
    given = {"duplicate": private.pk, "canonical": public.pk}
    refused = client.post("/api/v1/merges/", given, content_type="application/json")

    assert refused.status_code >= 400
    assert refused.json()["detail"].isascii()
    assert client.get("/api/v1/nothing/").json()["detail"] == "Not found."
    missing = client.post("/api/v1/questions/", {}, content_type="application/json")
    assert "This field is required." in missing.content.decode()


@pytest.mark.django_db
def test_why_something_was_refused_is_said_in_the_readers_language(agent, admin):
    flag = FlagFactory()
    review.dismiss(flag=flag, by=admin)
    faster = reader("de", agent).post(f"/review/{flag.pk}/decide/", {"verdict": "dismissed"})

    assert faster.status_code == 409
    page = faster.content.decode()
    assert "Jemand war schneller: Über dieses Paar ist bereits entschieden." in page
    assert "entschied „Keine Dublette“" in page
    one = QuestionFactory()
    refused = shown("ar", admin, f"/manage/merge/{one.pk}/{one.pk}/")
    assert "لا يمكن دمج السؤال في نفسه." in refused


@pytest.mark.django_db
def test_what_was_done_is_said_with_the_right_form_of_its_number(admin):
    client, forms = reader("ar", admin), {1: "تم البتّ في زوج واحد.", 2: "تم البتّ في زوجين معًا."}
    for count, said in {**forms, 3: "تم البتّ في 3 أزواج معًا."}.items():
        flags = [FlagFactory() for _ in range(count)]
        given = {"flag": [flag.pk for flag in flags], "verdict": "dismissed", "apply": "1"}
        done = client.post(reverse("review_many"), given)

        assert [str(message) for message in get_messages(done.wsgi_request)][-1:] == [said]


def test_languages_are_named_in_the_language_of_the_reader():
    for code, named_so in {
        "en": "Chinese and German", "de": "Chinesisch und Deutsch", "ar": "الصينية والألمانية",
    }.items():  # fmt: skip
        with translation.override(code):
            assert languages(["zh", "de"]) == named_so
            assert languages(["xx"]) == "xx"


def test_a_time_and_a_share_read_as_each_language_writes_them():
    days = timezone.now() - timezone.timedelta(days=3, minutes=1)
    said = {"en": (">3 days ago<", "93 %"), "de": (">vor 3 Tagen<", "93\xa0%"),
            "ar": (">قبل 3 أيام<", "93%")}  # fmt: skip
    for code, (ago, share) in said.items():
        with translation.override(code):
            assert ago in when(days)
            assert percent(0.934) == share


@pytest.mark.django_db
def test_a_question_is_private_in_the_words_of_whoever_reads_it(customer):
    QuestionFactory(audience="private", asked_by=customer, title="Geheim?")

    assert "Privat" in Visible(shown("de", customer, "/mine/")).pieces
