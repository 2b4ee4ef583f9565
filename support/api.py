"""The API's rules for everybody, and questions and answers."""

import json
import uuid
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from django.http import Http404
from django.urls import reverse
from rest_framework import exceptions, mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.views import exception_handler

from support import answering, asking, merging
from support.models import Answer, IdempotencyRecord, Product, Question
from support.models.token import digest

class Conflict(exceptions.APIException):
    status_code = 409
    default_code = "conflict"


def problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every error as problem details (RFC 9457), with a code and, where it has one, the field."""
    if isinstance(error, merging.NotAllowed):
        error = exceptions.PermissionDenied(str(error))
    elif isinstance(error, merging.MergeRefused):
        error = Conflict(str(error), code=error.code)
    elif isinstance(error, DjangoValidationError):
        error = exceptions.ValidationError(serializers.as_serializer_error(error))
    response = exception_handler(error, context)
    if response is None:
        return None
    response.data = _details(error, response.status_code)
    response.content_type = "application/problem+json"
    return response


def _details(error: Exception, status: int) -> dict[str, Any]:
    read: dict[str, Any] = {
        "type": "about:blank", "status": status, "code": "not_found", "title": "Not found.",
        "request_id": str(uuid.uuid4()),
    }  # fmt: skip
    if isinstance(error, Http404 | exceptions.NotFound):
        return read
    if isinstance(error, exceptions.ValidationError):
        fields = _flat(error.get_full_details())
        read["errors"] = fields
        read["code"] = fields[0]["code"] if fields else "invalid"
        read["title"] = fields[0]["message"] if fields else "This is not valid."
    elif isinstance(error, exceptions.APIException):
        codes = error.get_codes()
        read["code"] = codes if isinstance(codes, str) else "invalid"
        read["title"] = str(error.detail)
    else:
        read["code"], read["title"] = "permission_denied", "You may not do that."
    return read


CODES = {"max_length": "too_long", "required": "required", "null": "invalid"}


def _flat(details: Any, field: str = "") -> list[dict[str, str]]:
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        code = str(details["code"])
        return [
            {"field": field, "code": CODES.get(code, code), "message": str(details["message"])}
        ]
    if isinstance(details, dict):
        return [row for key, value in details.items() for row in _flat(value, str(key))]
    return [row for value in details for row in _flat(value, field)]


class StrictSerializer(serializers.ModelSerializer):  # type: ignore[type-arg]
    """Refuses fields that it does not know or that cannot be written."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := sorted(set(data) - writable):
                raise serializers.ValidationError(
                    {name: ["This field cannot be written."] for name in unknown},
                    code="unknown_field",
                )
        return super().to_internal_value(data)


class Newest(CursorPagination):
    """Newest first; a cursor does not skip or repeat when rows are added."""

    ordering: Any = ("-pk",)
    page_size = 50


class Idempotent:
    """Writes with `Idempotency-Key` happen once: the same answer for 24 hours, 409 for another body."""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key", "")
        if not key or request.method not in {"POST", "PATCH", "PUT", "DELETE"}:
            return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        self.idempotency_key = key[:200]
        with transaction.atomic():
            response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
            record = getattr(self, "idempotency_record", None)
            if record is not None and response.status_code < 500:
                if response.status_code >= 400:
                    record.delete()
                else:
                    record.status, record.body = response.status_code, _plain(response.data)
                    record.save(update_fields=["status", "body"])
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        key = getattr(self, "idempotency_key", None)
        if key is None or not request.user.is_authenticated:
            return
        body = json.dumps(request.data, sort_keys=True, default=str)
        said = digest(f"{request.method} {request.path} {body}")
        try:
            with transaction.atomic():  # a second request with the key waits here for the first
                self.idempotency_record = IdempotencyRecord.objects.create(
                    user=request.user, key=key, digest=said
                )
        except IntegrityError:
            raise _Repeated(
                IdempotencyRecord.objects.get(user=request.user, key=key), said
            ) from None

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _Repeated):
            if exc.record.digest == exc.said and exc.record.status:
                return Response(exc.record.body, status=exc.record.status)
            exc = Conflict("This key was used for another request.", code="idempotency_key_reused")
        return super().handle_exception(exc)  # type: ignore[misc,no-any-return]


class _Repeated(Exception):
    def __init__(self, record: IdempotencyRecord, said: str) -> None:
        self.record, self.said = record, said


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data, default=str)) if data is not None else None


class QuestionSerializer(StrictSerializer):
    product = serializers.SlugRelatedField(slug_field="slug", queryset=Product.objects.all())
    asked_by = serializers.CharField(source="asked_by.username", read_only=True)
    canonical = serializers.SerializerMethodField()

    class Meta:
        model = Question
        fields = [
            "id", "product", "title", "body", "audience", "asked_by", "asked_at", "edited_at",
            "version", "canonical",
        ]  # fmt: skip
        read_only_fields = ["asked_at", "edited_at", "version"]

    def get_canonical(self, question: Question) -> str | None:
        """The address of the question that stands for this one, where the reader may see it."""
        user = self.context["request"].user
        canonical = Question.objects.visible_to(user).filter(pk=question.canonical_id).first()
        return reverse("api:question-detail", args=[canonical.pk]) if canonical else None


class AnswerSerializer(StrictSerializer):
    written_by = serializers.CharField(source="written_by.username", read_only=True)

    class Meta:
        model = Answer
        fields = ["id", "question", "body", "written_by", "written_at"]
        read_only_fields = ["question", "written_at"]


class QuestionViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    viewsets.GenericViewSet,  # type: ignore[type-arg]
):
    """Questions that the caller may read; ask one, change one's own, read and write answers."""

    serializer_class = QuestionSerializer
    pagination_class = Newest
    queryset = Question.objects.none()
    filterset_fields = {"product__slug": ["exact"], "audience": ["exact"]}
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> Any:
        found = Question.objects.visible_to(self.request.user)
        if self.action == "partial_update":
            found = found.filter(asked_by=self.request.user.pk)
        return found.select_related("product", "asked_by")

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = asking.submit_question(
            **{"body": "", "audience": Question.Audience.PUBLIC} | serializer.validated_data,
            by=self.request.user,
        )

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change one's own question; `If-Match` names the version that was read (409 when stale)."""
        question = self.get_object()
        serializer = self.get_serializer(question, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        seen = request.headers.get("If-Match", "").strip('W/"')
        given = serializer.validated_data
        changed = asking.edit_question(
            question=question,
            title=given.get("title", question.title),
            body=given.get("body", question.body),
            audience=given.get("audience", question.audience),
            by=request.user,
            seen=int(seen) if seen.isdecimal() else question.version,
        )
        return Response(self.get_serializer(changed).data)

    @action(detail=True, methods=["get", "post"], serializer_class=AnswerSerializer)
    def answers(self, request: Request, pk: str = "") -> Response:
        """Answers of the whole thread, oldest first; or write one."""
        question = self.get_object()
        if request.method == "POST":
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            written = answering.post_answer(
                question=question, body=serializer.validated_data["body"], by=request.user
            )
            return Response(self.get_serializer(written).data, status=201)
        members = Question.objects.visible_to(request.user).of_threads(question.pk)
        found = Answer.objects.filter(question__in=members).select_related("written_by")
        return Response(self.get_serializer(found.order_by("written_at", "pk"), many=True).data)


router = DefaultRouter()
router.register("questions", QuestionViewSet, basename="question")
