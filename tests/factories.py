import functools

import factory
from django.contrib.auth.hashers import make_password
from factory.django import DjangoModelFactory

from dedup.models import Flag, Release
from support.models import Answer, Product, Question, Subscription, User, Vote

hashed = functools.cache(make_password)  # Argon2 is slow on purpose: once is enough here


class UserFactory(DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence("person{}".format)
    email = factory.LazyAttribute(lambda person: f"{person.username}@example.com")
    password = factory.LazyFunction(lambda: hashed("correct horse battery"))

    @factory.post_generation
    def confirmed(person, create, wanted, **_):  # noqa: N805
        """Their address is confirmed, unless a test wants it otherwise."""
        if create and person.email and wanted is not False:
            person.emailaddress_set.create(email=person.email.lower(), verified=True, primary=True)


class ProductFactory(DjangoModelFactory):
    class Meta:
        model = Product
        django_get_or_create = ["slug"]

    slug = "lamp"
    name = factory.LazyAttribute(lambda product: product.slug.title())


class QuestionFactory(DjangoModelFactory):
    class Meta:
        model = Question

    product = factory.SubFactory(ProductFactory)
    title = factory.Sequence("How do I change bulb number {}?".format)
    body = "It went dark."
    asked_by = factory.SubFactory(UserFactory)


class AnswerFactory(DjangoModelFactory):
    class Meta:
        model = Answer

    question = factory.SubFactory(QuestionFactory)
    body = "Turn it to the left."
    written_by = factory.SubFactory(UserFactory)


class VoteFactory(DjangoModelFactory):
    class Meta:
        model = Vote

    question = factory.SubFactory(QuestionFactory)
    by = factory.SubFactory(UserFactory)


class SubscriptionFactory(DjangoModelFactory):
    class Meta:
        model = Subscription

    question = factory.SubFactory(QuestionFactory)
    subscriber = factory.SubFactory(UserFactory)


class ReleaseFactory(DjangoModelFactory):
    class Meta:
        model = Release

    name = factory.Sequence("release-{}".format)
    fingerprint = factory.Sequence("{:064x}".format)
    embedding_fingerprint = "e" * 64
    threshold = 0.8
    suggestion_floor = 0.5
    sure_threshold = 0.95


class FlagFactory(DjangoModelFactory):
    class Meta:
        model = Flag

    older = factory.SubFactory(QuestionFactory)
    newer = factory.SubFactory(QuestionFactory)
    probability = 0.9
    release = factory.SubFactory(ReleaseFactory)
    older_hash = "o" * 64
    newer_hash = "n" * 64
