"""The demo's text is data, so a slip in it would show only in the product; these tests read it."""

import json
import re
from collections import Counter
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "dedup" / "management" / "demo"
SEED = json.loads((DEMO / "seed.json").read_text(encoding="utf-8"))
ARRIVALS = json.loads((DEMO / "arrivals.json").read_text(encoding="utf-8"))
QUESTIONS = {question["key"]: question for question in SEED["questions"]}
ROLES = {person["username"]: person["role"] for person in SEED["people"]}
DUPLICATES = [question for question in SEED["questions"] if question["duplicate_of"]]
NEAR_MISSES = [question for question in SEED["questions"] if question["near_miss_of"]]
DIFFERENCES = {"number", "version", "product", "negation", "direction", "scope"}


def test_there_is_enough_of_everything():
    assert len(SEED["questions"]) >= 290
    assert len(SEED["products"]) == 4
    assert len(DUPLICATES) >= 50
    assert len(NEAR_MISSES) >= 35
    assert Counter(arrival["kind"] for arrival in ARRIVALS) == {"duplicate": 12, "near_miss": 8}


def test_the_three_logins_exist_in_their_roles():
    assert {name: ROLES[name] for name in ("customer", "agent", "admin")} == {
        "customer": "customer",
        "agent": "agent",
        "admin": "admin",
    }
    assert set(ROLES.values()) == {"customer", "agent", "admin"}


def test_no_key_is_given_twice():
    assert len(QUESTIONS) == len(SEED["questions"])
    assert len(ROLES) == len(SEED["people"])
    assert len({product["slug"] for product in SEED["products"]}) == len(SEED["products"])


def test_no_two_titles_are_equal():
    titles = [text["title"].casefold() for text in [*SEED["questions"], *ARRIVALS]]

    assert [title for title, count in Counter(titles).items() if count > 1] == []


def test_every_reference_leads_somewhere():
    slugs = {product["slug"] for product in SEED["products"]}

    for question in SEED["questions"]:
        assert question["product"] in slugs
        assert ROLES[question["asked_by"]] == "customer"
        assert {answer["by"] for answer in question["answers"]} <= ROLES.keys()
        assert {question["duplicate_of"], question["near_miss_of"]} <= {None, *QUESTIONS}
    for arrival in ARRIVALS:
        assert arrival["product"] in slugs
        assert ROLES[arrival["asked_by"]] == "customer"
        assert arrival["of"] in QUESTIONS


def test_a_duplicate_is_newer_than_what_it_duplicates_and_about_the_same_product():
    for question in DUPLICATES:
        oldest = QUESTIONS[question["duplicate_of"]]
        assert question["days_ago"] < oldest["days_ago"], question["key"]
        assert question["product"] == oldest["product"], question["key"]


def test_a_duplicate_points_at_the_oldest_of_its_cluster_and_was_asked_by_somebody_else():
    for question in DUPLICATES:
        oldest = QUESTIONS[question["duplicate_of"]]
        assert oldest["duplicate_of"] is None, question["key"]
        assert question["asked_by"] != oldest["asked_by"], question["key"]
        assert question["near_miss_of"] is None, question["key"]


def test_merged_pairs_have_the_same_audience():
    merged = [question for question in SEED["questions"] if question.get("merged")]

    assert len(merged) >= 10
    for question in merged:
        oldest = QUESTIONS[question["duplicate_of"]]
        assert question["audience"] == oldest["audience"] == "public", question["key"]


def test_a_near_miss_says_in_what_it_differs():
    for question in NEAR_MISSES:
        assert question["difference"] in DIFFERENCES, question["key"]
        same = question["product"] == QUESTIONS[question["near_miss_of"]]["product"]
        assert same == (question["difference"] != "product"), question["key"]


def test_an_arrival_asks_about_a_public_question_and_the_same_product_unless_stated():
    for arrival in ARRIVALS:
        seeded = QUESTIONS[arrival["of"]]
        assert seeded["audience"] == "public"
        assert arrival["asked_by"] != seeded["asked_by"]
        same = arrival["product"] == seeded["product"]
        assert same == (arrival.get("difference") != "product"), arrival["title"]
        assert (arrival.get("difference") in DIFFERENCES) == (arrival["kind"] == "near_miss")


def test_a_private_question_shows_no_trace_of_other_customers():
    for question in SEED["questions"]:
        if question["audience"] == "private":
            others = {answer["by"] for answer in question["answers"]} - {question["asked_by"]}
            assert "customer" not in {ROLES[name] for name in others}, question["key"]
            assert question["votes"] == question["followers"] == 0, question["key"]


def test_texts_have_a_size_the_portal_accepts():
    for text in [*SEED["questions"], *ARRIVALS]:
        assert 10 <= len(text["title"]) <= 200, text["title"]
        assert 10 <= len(text["body"]) <= 20_000, text["title"]
    for question in SEED["questions"]:
        assert all(answer["body"] for answer in question["answers"])


def test_answers_are_newer_than_their_question_and_at_most_one_is_accepted():
    for question in SEED["questions"]:
        assert 0.5 <= question["days_ago"] <= 400, question["key"]
        for answer in question["answers"]:
            assert 0 < answer["days_ago"] < question["days_ago"], question["key"]
        assert sum(answer["accepted"] for answer in question["answers"]) <= 1


def test_mail_addresses_and_links_lead_to_example_com_alone():
    text = json.dumps([SEED, ARRIVALS], ensure_ascii=False)

    assert set(re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", text)) == {"example.com"}
    for host in re.findall(r"https?://([^/\s\"\\)]+)", text):
        assert host == "example.com" or host.endswith(".example.com"), host
