"""API: similar questions, flags and reviews, merges, releases."""

from typing import Any

from rest_framework import mixins, permissions, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dedup import review, suggesting
from dedup.models import Flag, Release, Review
from support import merging
from support.api import Conflict, Idempotent, Newest, QuestionSerializer, StrictSerializer, problem
from support.models import Merge, Product, Question


class MayReview(permissions.BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.user.has_perm("dedup.review_flag")


def review_problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """As everywhere, and a review that came too late is a 409."""
    if isinstance(error, review.ReviewRefused):
        error = Conflict(str(error), code=error.code)
    return problem(error, context)


class SimilarRequest(serializers.Serializer):  # type: ignore[type-arg]
    title = serializers.CharField(max_length=200)
    body = serializers.CharField(max_length=20_000, required=False, allow_blank=True)
    product = serializers.SlugRelatedField(
        slug_field="slug", queryset=Product.objects.all(), required=False
    )


class SimilarResponse(serializers.Serializer):  # type: ignore[type-arg]
    by_meaning = serializers.BooleanField()
    questions = QuestionSerializer(many=True)


class SimilarView(APIView):
    """Questions like a text, likeliest first, that the caller may read. Saves nothing."""

    serializer_class = SimilarRequest

    def post(self, request: Request) -> Response:
        given = SimilarRequest(data=request.data)
        given.is_valid(raise_exception=True)
        product = given.validated_data.get("product")
        found = suggesting.similar(
            title=given.validated_data["title"],
            body=given.validated_data.get("body", ""),
            reader=request.user,
            product_id=product.pk if product else None,
        )
        return Response(SimilarResponse(found, context={"request": request}).data)


class FlagSerializer(StrictSerializer):
    release = serializers.CharField(source="release.name", read_only=True)

    class Meta:
        model = Flag
        fields = [
            "id", "older", "newer", "probability", "release", "status", "flagged_at", "decided_at",
        ]  # fmt: skip


class ReviewSerializer(StrictSerializer):
    by = serializers.CharField(source="by.username", read_only=True)
    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    canonical = serializers.PrimaryKeyRelatedField(
        queryset=Question.objects.all(), required=False, allow_null=True
    )

    class Meta:
        model = Review
        fields = ["id", "flag", "verdict", "by", "reviewed_at", "canonical", "merge", "undone_at"]
        read_only_fields = ["flag", "reviewed_at", "merge", "undone_at"]


class FlagViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,  # type: ignore[type-arg]
):
    """The review queue."""

    serializer_class = FlagSerializer
    permission_classes = [permissions.IsAuthenticated, MayReview]
    pagination_class = Newest
    queryset = Flag.objects.select_related("release")
    filterset_fields = {"status": ["exact"], "probability": ["gte", "lte"]}
    lookup_value_regex = r"\d{1,17}"

    def get_exception_handler(self) -> Any:
        return review_problem

    @action(detail=True, methods=["post"], serializer_class=ReviewSerializer)
    def reviews(self, request: Request, pk: str = "") -> Response:
        """Decide: confirmed (with the canonical), dismissed or skipped."""
        flag = self.get_object()
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        verdict = given.validated_data["verdict"]
        if verdict == Review.Verdict.CONFIRMED:
            canonical = given.validated_data.get("canonical") or flag.older
            said = review.confirm(flag=flag, canonical=canonical, by=request.user)
        elif verdict == Review.Verdict.DISMISSED:
            said = review.dismiss(flag=flag, by=request.user)
        else:
            said = review.skip(flag=flag, by=request.user)
        return Response(self.get_serializer(said).data, status=201)


class ReviewViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,  # type: ignore[type-arg]
):
    """Decisions, newest first; `undo` takes one's own back."""

    serializer_class = ReviewSerializer
    permission_classes = [permissions.IsAuthenticated, MayReview]
    pagination_class = Newest
    queryset = Review.objects.select_related("by")
    filterset_fields = {"flag": ["exact"], "verdict": ["exact"]}
    lookup_value_regex = r"\d{1,17}"

    def get_exception_handler(self) -> Any:
        return review_problem

    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str = "") -> Response:
        said = self.get_object()
        review.undo(review=said, by=request.user)
        said.refresh_from_db()
        return Response(self.get_serializer(said).data)


class MergeSerializer(StrictSerializer):
    merged_by = serializers.CharField(source="merged_by.username", read_only=True)
    versions = serializers.DictField(
        child=serializers.IntegerField(), write_only=True, required=False
    )

    class Meta:
        model = Merge
        fields = [
            "id", "duplicate", "canonical", "merged_by", "merged_at", "reason", "probability",
            "release", "undone_at", "versions",
        ]  # fmt: skip
        read_only_fields = ["merged_at", "probability", "release", "undone_at"]
        validators: list[Any] = []  # the database's rules are refused by name in support.merging


class MergeViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,  # type: ignore[type-arg]
):
    """Merges: make one, and `undo` any, at any time. Both can be repeated without harm."""

    serializer_class = MergeSerializer
    permission_classes = [permissions.IsAuthenticated, MayReview]
    pagination_class = Newest
    queryset = Merge.objects.select_related("merged_by")
    filterset_fields = {"duplicate": ["exact"], "canonical": ["exact"]}
    lookup_value_regex = r"\d{1,17}"

    def create(self, request: Request) -> Response:
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        data = given.validated_data
        edge = merging.merge(
            duplicate=data["duplicate"],
            canonical=data["canonical"],
            by=request.user,
            reason=data.get("reason", ""),
            seen={int(pk): seen for pk, seen in data.get("versions", {}).items() if pk.isdecimal()},
        )
        return Response(self.get_serializer(edge).data, status=201)

    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str = "") -> Response:
        edge = review.unmerge(merge=self.get_object(), by=request.user)
        return Response(self.get_serializer(edge).data)


class ReleaseSerializer(StrictSerializer):
    class Meta:
        model = Release
        fields = ["id", "name", "fingerprint", "threshold", "is_active", "activated_at", "added_at"]


class ReleaseViewSet(viewsets.ReadOnlyModelViewSet):  # type: ignore[type-arg]
    """Releases and which of them is in service."""

    serializer_class = ReleaseSerializer
    permission_classes = [permissions.IsAuthenticated, MayReview]
    pagination_class = Newest
    queryset = Release.objects.all()
    lookup_value_regex = r"\d{1,17}"
