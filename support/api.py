"""The API's rules for everybody, and questions and answers."""

import json
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import MaxLengthValidator
from django.db import IntegrityError, models, transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, mixins, permissions, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import exception_handler

from support import answering, api_schema, asking, merging, problems
from support.models import Answer, IdempotencyRecord, Product, Question, User
from support.models.question import TITLE_CHECKS
from support.models.token import digest
from support.models.validators import LARGEST_TITLE

LONGEST_KEY = 200
LONGEST_NUMBER = 17  # digits of an id or a version; more is none of ours
CODES = {"max_length": "too_long", "null": "invalid"}


class Conflict(exceptions.APIException):
    """The request was understood, and something else is true by now; `more` says what."""

    status_code = 409
    default_code = "conflict"

    def __init__(self, detail: str, *, code: str, **more: Any) -> None:
        super().__init__(detail, code=code)
        self.more = more


def problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every error as problem details, with a code and, where it has one, the field."""
    if isinstance(error, merging.NotAllowed):
        error = exceptions.PermissionDenied(str(error))
    elif isinstance(error, merging.MergeRefused):
        error = Conflict(str(error), code=error.code, **error.details)
    elif isinstance(error, DjangoValidationError):
        error = exceptions.ValidationError(serializers.as_serializer_error(error))
    response = exception_handler(error, context)
    if response is None:
        return None
    response.data = problems.details(status=response.status_code, **_said_of(error))
    response.content_type = problems.MEDIA_TYPE
    return response


def _said_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, exceptions.ValidationError):
        fields = _flat(error.get_full_details())
        first = fields[0] if fields else {"field": "", "code": "invalid", "message": "Not valid."}
        return {
            "code": first["code"], "detail": first["message"], "field": first["field"],
            "errors": fields,
        }  # fmt: skip
    if isinstance(error, Http404 | exceptions.NotFound):
        return {"code": "not_found", "detail": "Not found."}  # the same for private and missing
    if isinstance(error, exceptions.APIException):
        codes = error.get_codes()
        code = codes if isinstance(codes, str) else "invalid"
        return {"code": code, "detail": str(error.detail), **getattr(error, "more", {})}
    return {"code": "permission_denied", "detail": "You may not do that."}


def _flat(details: Any, field: str = "") -> list[dict[str, str]]:
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        code = str(details["code"])
        named = "" if field == "non_field_errors" else field
        return [{"field": named, "code": CODES.get(code, code), "message": str(details["message"])}]
    if isinstance(details, dict):
        return [row for key, value in details.items() for row in _flat(value, str(key))]
    return [row for value in details for row in _flat(value, field)]


def person(request: Request) -> User:
    """Who sent a request that passed its permissions: never a guest."""
    assert isinstance(request.user, User)
    return request.user


class Strict:
    """A serializer that refuses fields which it does not know or which cannot be written."""

    fields: Any

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := sorted(set(data) - writable):
                raise serializers.ValidationError(
                    {name: ["This field cannot be written."] for name in unknown},
                    code="unknown_field",
                )
        return super().to_internal_value(data)  # type: ignore[misc]


class Text(serializers.CharField):
    """A text, and not a number that could be written as one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictSerializer(Strict, serializers.ModelSerializer):
    """A row, in and out."""

    serializer_field_mapping = serializers.ModelSerializer.serializer_field_mapping | {
        models.CharField: Text,
        models.TextField: Text,
    }


class Newest(CursorPagination):
    """Newest first; a cursor does not skip or repeat when rows are added."""

    ordering: Any = ("-pk",)
    page_size = 50
    invalid_cursor_message = "This cursor is not one of ours."

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)
        if cursor and cursor.position is not None and not is_number(str(cursor.position)):
            raise exceptions.NotFound(self.invalid_cursor_message)
        return cursor


class Oldest(Newest):
    ordering = ("pk",)


def is_number(text: str) -> bool:
    """Whether a text from outside can be an id or a version."""
    return text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER


class Idempotent:
    """Writes with `Idempotency-Key` happen once: the same answer for a day, 409 for another body.

    The key, what is written and the answer commit together: a crash leaves none of them.
    """

    idempotency_key = ""
    idempotency_record: IdempotencyRecord | None = None
    tries = 0

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.idempotency_key = request.headers.get("Idempotency-Key", "")
        if not self.idempotency_key or request.method in permissions.SAFE_METHODS:
            return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        _ = request.body  # read once, so that another try after a deadlock finds it again
        return merging.retried(self._once)(request, *args, **kwargs)

    def _once(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.tries += 1
        self.idempotency_record = None
        response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        record = self.idempotency_record
        if record is not None:
            if response.status_code >= 400:
                record.delete()
            else:
                record.status, record.body = response.status_code, _plain(response.data)
                record.save(update_fields=["status", "body"])
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        if not self.idempotency_key or request.method in permissions.SAFE_METHODS:
            return
        if len(self.idempotency_key) > LONGEST_KEY:
            raise exceptions.ValidationError({"Idempotency-Key": [f"At most {LONGEST_KEY} bytes."]})
        given = {"user": request.user, "key": self.idempotency_key}
        body = json.dumps(request.data, sort_keys=True, default=str)
        said = digest(f"{request.method} {request.path} {body}")
        try:
            with transaction.atomic():  # a second request with the key waits here for the first
                record = IdempotencyRecord.objects.create(**given, digest=said)
        except IntegrityError:
            raise _Repeated(IdempotencyRecord.objects.get(**given), said) from None
        self.idempotency_record = record

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _Repeated):
            if exc.record.digest == exc.said:
                headers = {"Idempotent-Replayed": "true"}
                return Response(exc.record.body, status=exc.record.status, headers=headers)
            exc = Conflict("This key was used for another request.", code="idempotency_key_reused")
        if isinstance(exc, merging.ThreadsMoved) and 0 < self.tries < merging.TRIES:
            raise exc  # the outermost call tries again
        return super().handle_exception(exc)  # type: ignore[misc]


class _Repeated(Exception):
    def __init__(self, record: IdempotencyRecord, said: str) -> None:
        self.record, self.said = record, said


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data, default=str)) if data is not None else None


def title_field() -> Text:
    """A question's title; what is too long is told with its length."""
    checks: list[Any] = [*TITLE_CHECKS, MaxLengthValidator(LARGEST_TITLE)]
    return Text(validators=checks)


class QuestionSerializer(StrictSerializer):
    product = serializers.SlugRelatedField(slug_field="slug", queryset=Product.objects.all())
    title = title_field()
    asked_by = serializers.CharField(source="asked_by.username", read_only=True)
    canonical = serializers.SerializerMethodField()

    class Meta:
        model = Question
        fields = [
            "id", "product", "title", "body", "audience", "asked_by", "asked_at", "edited_at",
            "version", "language", "canonical",
        ]  # fmt: skip
        read_only_fields = ["asked_at", "edited_at", "version", "language"]

    def get_canonical(self, question: Question) -> str | None:
        """The address of the question that stands for this one, where the reader may see it."""
        shown = getattr(question, "shown_canonical", None)
        return reverse("api:question-detail", args=[shown]) if shown else None


class EditSerializer(StrictSerializer):
    title = title_field()

    class Meta:
        model = Question
        fields = ["title", "body", "audience"]


class AnswerSerializer(StrictSerializer):
    written_by = serializers.CharField(source="written_by.username", read_only=True)

    class Meta:
        model = Answer
        fields = ["id", "question", "body", "written_by", "written_at"]
        read_only_fields = ["question", "written_at"]


def readable(user: Any) -> QuerySet[Question]:
    """Questions that `user` may read, each with the canonical that they may be told of."""
    found = Question.objects.visible_to(user)
    shown = found.filter(pk=OuterRef("canonical_id")).values("pk")
    return found.annotate(shown_canonical=Subquery(shown)).select_related("product", "asked_by")


class QuestionViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    viewsets.GenericViewSet,
):
    """Questions that the caller may read; ask one, change one's own, read and write answers."""

    serializer_class = QuestionSerializer
    pagination_class = Newest
    queryset = Question.objects.none()
    filterset_fields = {"product__slug": ["exact"], "audience": ["exact"]}
    lookup_value_regex = r"[0-9]{1,17}"

    def get_queryset(self) -> Any:
        return readable(self.request.user)

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = asking.submit_question(
            **{"body": "", "audience": Question.Audience.PUBLIC} | serializer.validated_data,
            by=person(self.request),
        )

    @extend_schema(
        request=EditSerializer, responses=QuestionSerializer, parameters=[api_schema.IF_MATCH]
    )
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change one's own question; `If-Match` names the version that was read."""
        question = self.get_object()
        if question.asked_by_id != request.user.pk:
            raise exceptions.PermissionDenied("Only who asked a question can change it.")
        serializer = EditSerializer(question, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        asking.edit_question(
            question=question,
            title=given.get("title", question.title),
            body=given.get("body", question.body),
            audience=given.get("audience", question.audience),
            by=person(request),
            seen=_version_seen(request, question),
        )
        return Response(self.get_serializer(self.get_queryset().get(pk=question.pk)).data)

    @extend_schema(methods=["GET"], responses=AnswerSerializer(many=True))
    @extend_schema(methods=["POST"], responses={201: AnswerSerializer})
    @action(
        detail=True, methods=["get", "post"], serializer_class=AnswerSerializer,
        pagination_class=Oldest, filter_backends=[],
    )  # fmt: skip
    def answers(self, request: Request, pk: str = "") -> Response:
        """Answers of the whole thread, oldest first; or write one."""
        question = self.get_object()
        if request.method == "POST":
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            written = answering.post_answer(
                question=question, body=serializer.validated_data["body"], by=person(request)
            )
            return Response(self.get_serializer(written).data, status=201)
        members = Question.objects.visible_to(request.user).of_threads(question.pk)
        found = Answer.objects.filter(question__in=members).select_related("written_by")
        page = self.paginate_queryset(found)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


def _version_seen(request: Request, question: Question) -> int:
    """What `If-Match` names; without it, whatever is there. No version is ever 0."""
    named = request.headers.get("If-Match", "*").strip()
    if named == "*":
        return question.version
    number = named.removeprefix("W/").strip('"')
    return int(number) if is_number(number) else 0


router = SimpleRouter()
router.register("questions", QuestionViewSet, basename="question")
