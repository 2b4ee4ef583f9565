"""API: similar questions, flags and reviews, merges, releases, jobs."""

from datetime import timedelta
from typing import Any

from django.core.validators import MaxLengthValidator
from django.db.models import OuterRef, Subquery, prefetch_related_objects
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, permissions, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dedup import desk, gates, jobs, promoting, releases, reports, review, starting, suggesting
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Flag, Job, Release, Report, Review
from support.api import (
    Conflict,
    Idempotent,
    Newest,
    QuestionSerializer,
    Strict,
    StrictSerializer,
    Text,
    is_number,
    person,
    problem,
    title_field,
)
from support.api_schema import SAVES_NOTHING
from support.models import Merge, Product, Question, User
from support.models.validators import LARGEST_BODY


class MayReview(permissions.BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.user.has_perm("dedup.review_flag")


def review_problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """As everywhere, and a review that came too late is a 409 that says who decided what."""
    if isinstance(error, review.FlagClosed) and error.last:
        error = Conflict(
            str(error), code=error.code, verdict=error.last.verdict,
            decided_by=error.last.by.username, decided_at=error.last.reviewed_at,
        )  # fmt: skip
    elif isinstance(error, review.ReviewRefused):
        error = Conflict(str(error), code=error.code)
    return problem(error, context)


class SimilarRequest(Strict, serializers.Serializer):
    title = title_field()
    body = Text(required=False, allow_blank=True, validators=[MaxLengthValidator(LARGEST_BODY)])
    product = serializers.SlugRelatedField(
        slug_field="slug", queryset=Product.objects.all(), required=False
    )


class SimilarResponse(serializers.Serializer):
    by_meaning = serializers.BooleanField()
    questions = QuestionSerializer(many=True)


class SimilarView(APIView):
    """Questions like a text, likeliest first, that the caller may read. Saves nothing."""

    saves_nothing = True

    @extend_schema(
        request=SimilarRequest, responses=SimilarResponse, extensions={SAVES_NOTHING: True}
    )
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
        prefetch_related_objects(found.questions, "asked_by")
        return Response(SimilarResponse(found, context={"request": request}).data)


def of_questions(versions: dict[str, int]) -> None:
    """Raise ValidationError where a key is no question's id."""
    if not all(is_number(pk) for pk in versions):
        raise serializers.ValidationError("Each key is the id of a question.")


def versions_field() -> serializers.DictField:
    """Ids of questions to the versions that were read; where one is older, it is a 409."""
    return serializers.DictField(
        child=serializers.IntegerField(), write_only=True, required=False, validators=[of_questions]
    )


class FlagSerializer(StrictSerializer):
    release = serializers.CharField(source="release.name", read_only=True)
    probability = serializers.FloatField(
        source="known_probability", read_only=True, allow_null=True,
        help_text="Null where the release was not evaluated in a language of the two.",
    )  # fmt: skip
    unevaluated_languages = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Flag
        fields = [
            "id", "older", "newer", "probability", "unevaluated_languages", "release", "status",
            "flagged_at", "decided_at",
        ]  # fmt: skip


class ReviewSerializer(StrictSerializer):
    by = serializers.CharField(source="by.username", read_only=True)
    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    canonical = serializers.PrimaryKeyRelatedField(
        queryset=Question.objects.all(), required=False, allow_null=True
    )

    until = serializers.DateTimeField(write_only=True, required=False)
    versions = versions_field()

    class Meta:
        model = Review
        fields = [
            "id", "flag", "verdict", "by", "reviewed_at", "canonical", "note", "merge", "undone_at",
            "until", "versions",
        ]  # fmt: skip
        read_only_fields = ["flag", "reviewed_at", "merge", "undone_at"]


class FlagViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,
):
    """The review queue."""

    serializer_class = FlagSerializer
    permission_classes = [*APIView.permission_classes, MayReview]
    pagination_class = Newest
    queryset = Flag.objects.unhidden().select_related("release", "older", "newer")
    filterset_fields = {"status": ["exact"], "probability": ["gte", "lte"]}
    lookup_value_regex = r"[0-9]{1,17}"

    def get_exception_handler(self) -> Any:
        return review_problem

    @extend_schema(responses={201: ReviewSerializer})
    @action(detail=True, methods=["post"], serializer_class=ReviewSerializer)
    def reviews(self, request: Request, pk: str = "") -> Response:
        """Decide, or pass on: `canonical` stays where it is confirmed, `note` says what is unclear,
        `until` is when it comes back; `versions` are of the texts that were read."""
        flag = self.get_object()
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        said = _review(flag, given.validated_data, by=person(request))
        return Response(self.get_serializer(said).data, status=201)


def _review(flag: Flag, given: dict[str, Any], *, by: User) -> Review:
    seen = {int(pk): version for pk, version in given.get("versions", {}).items()}
    note = given.get("note", "")
    match given["verdict"]:
        case Review.Verdict.CONFIRMED:
            canonical = given.get("canonical") or review.proposed(flag)
            _require_of_pair(flag, canonical)
            return review.confirm(flag=flag, canonical=canonical, by=by, seen=seen)
        case Review.Verdict.SKIPPED:
            return review.skip(flag=flag, by=by)
        case Review.Verdict.UNSURE:
            return review.ask_second_opinion(flag=flag, by=by, note=note)
        case Review.Verdict.SNOOZED:
            until = given.get("until") or timezone.now() + timedelta(days=1)
            return review.snooze(flag=flag, by=by, until=until)
    is_related = given["verdict"] == Review.Verdict.RELATED
    return review.dismiss(flag=flag, by=by, is_related=is_related, note=note, seen=seen)


def _require_of_pair(flag: Flag, canonical: Question) -> None:
    """Raise ValidationError where the canonical stands in neither thread of the pair."""
    if canonical.root_id not in {flag.older.root_id, flag.newer.root_id}:
        said = {"canonical": ["This question is not one of the pair."]}
        raise serializers.ValidationError(said, code="not_of_pair")


class ReviewViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,
):
    """Decisions, newest first; `undo` takes one's own back."""

    serializer_class = ReviewSerializer
    permission_classes = [*APIView.permission_classes, MayReview]
    pagination_class = Newest
    queryset = Review.objects.select_related("by")
    filterset_fields = {"flag": ["exact"], "verdict": ["exact"]}
    lookup_value_regex = r"[0-9]{1,17}"

    def get_exception_handler(self) -> Any:
        return review_problem

    @extend_schema(request=None, responses=ReviewSerializer)
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str = "") -> Response:
        """Take one's newest decision on a pair back, with the merge that it led to."""
        said = self.get_object()
        review.undo(review=said, by=person(request))
        said.refresh_from_db()
        return Response(self.get_serializer(said).data)


class MergeSerializer(StrictSerializer):
    merged_by = serializers.CharField(source="merged_by.username", read_only=True)
    versions = versions_field()

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
    viewsets.GenericViewSet,
):
    """Merges: make one, and `undo` any, at any time. Both can be repeated without harm."""

    serializer_class = MergeSerializer
    permission_classes = [*APIView.permission_classes, MayReview]
    pagination_class = Newest
    queryset = Merge.objects.select_related("merged_by")
    filterset_fields = {"duplicate": ["exact"], "canonical": ["exact"]}
    lookup_value_regex = r"[0-9]{1,17}"

    def create(self, request: Request) -> Response:
        """Merge; `versions` maps the questions' ids to the versions that were read."""
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        data = given.validated_data
        edge = desk.merge(
            duplicate=data["duplicate"],
            canonical=data["canonical"],
            by=person(request),
            reason=data.get("reason", ""),
            seen={int(pk): seen for pk, seen in data.get("versions", {}).items()},
        )
        return Response(self.get_serializer(edge).data, status=201)

    @extend_schema(request=None, responses=MergeSerializer)
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, pk: str = "") -> Response:
        """Take a merge back; what was written since stays where it was written."""
        edge = desk.unmerge(merge=self.get_object(), by=person(request))
        return Response(self.get_serializer(edge).data)


class MayActivate(permissions.BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.user.has_perm("dedup.activate_release")


@extend_schema_field({"type": "object", "additionalProperties": True})
class Figures(serializers.JSONField):
    """Figures by name."""


class ReleaseSerializer(StrictSerializer):
    figures = Figures(
        read_only=True, allow_null=True,
        help_text="Of the newest report on this portal's own pairs: each with value, low and high"
        " (95 %). Null where there is no report, empty where too few pairs were decided.",
    )  # fmt: skip

    class Meta:
        model = Release
        fields = [
            "id", "name", "fingerprint", "threshold", "is_active", "activated_at", "added_at",
            "shadow_since", "previous", "overruled", "figures",
        ]  # fmt: skip


class ReportSerializer(StrictSerializer):
    release = serializers.CharField(source="release.name", read_only=True)
    against = serializers.CharField(source="against.name", read_only=True, allow_null=True)

    class Meta:
        model = Report
        fields = ["release", "against", "made_at", "figures"]
        read_only_fields = fields


class GateSerializer(serializers.Serializer):
    name = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=[gates.OPEN, gates.SHUT, gates.UNKNOWN])
    found = serializers.CharField(help_text="figures, or what is to be done")
    may_be_overruled = serializers.BooleanField()


class PromoteRequest(Strict, serializers.Serializer):
    reason = Text(
        required=False, allow_blank=True, max_length=promoting.LONGEST_REASON,
        help_text="why it goes into service though gates are shut",
    )  # fmt: skip


def release_problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """As everywhere; what is kept out is a 409 that lists the gates which are shut."""
    if isinstance(error, promoting.GatesShut):
        shut = GateSerializer(error.gates, many=True).data
        error = Conflict("Gates are shut.", code="gates_shut", gates=shut)
    elif isinstance(error, ArtifactRefused):
        error = Conflict(str(error), code="files_refused")
    elif isinstance(error, releases.NoWayBack | releases.NoRelease):
        error = Conflict(str(error), code="no_way_back")
    elif isinstance(error, releases.ActiveAlready):
        error = Conflict(str(error), code="active_already")
    return problem(error, context)


class ReleaseViewSet(Idempotent, viewsets.ReadOnlyModelViewSet):
    """Releases and which of them is in service; admins put them there, and bring the last back."""

    serializer_class = ReleaseSerializer
    permission_classes = [*APIView.permission_classes, MayReview]
    pagination_class = Newest
    queryset = Release.objects.annotate(
        figures=Subquery(
            Report.objects.filter(release=OuterRef("pk"))
            .order_by("-made_at", "-pk")
            .values("figures__own__figures")[:1]
        )
    )
    lookup_value_regex = r"[0-9]{1,17}"
    changing = [*APIView.permission_classes, MayActivate]

    def get_exception_handler(self) -> Any:
        return release_problem

    @extend_schema(responses=ReportSerializer)
    @action(
        detail=True, serializer_class=ReportSerializer,
        permission_classes=[*APIView.permission_classes, MayActivate],
    )  # fmt: skip
    def report(self, request: Request, pk: str = "") -> Response:
        """The newest report, whole; 404 where the release was not measured yet."""
        found = reports.newest(self.get_object())
        if found is None:
            raise NotFound
        return Response(self.get_serializer(found).data)

    @extend_schema(responses=GateSerializer(many=True))
    @action(detail=True, permission_classes=changing, pagination_class=None)
    def gates(self, request: Request, pk: str = "") -> Response:
        """What is asked of it before it goes into service; empty for the one that is there."""
        return Response(GateSerializer(promoting.judged(self.get_object()), many=True).data)

    @extend_schema(request=PromoteRequest, responses=ReleaseSerializer)
    @action(detail=True, methods=["post"], permission_classes=changing)
    def promote(self, request: Request, pk: str = "") -> Response:
        """Put it into service. 409 `gates_shut` lists what keeps it out, in `gates`."""
        given = PromoteRequest(data=request.data)
        given.is_valid(raise_exception=True)
        reason = given.validated_data.get("reason", "")
        promoted = promoting.promote(release=self.get_object(), by=person(request), reason=reason)
        return self._told(promoted)

    @extend_schema(request=None, responses=ReleaseSerializer)
    @action(detail=True, methods=["post"], permission_classes=changing)
    def back(self, request: Request, pk: str = "") -> Response:
        """Take it out of service for the one that it replaced, which is returned."""
        back = releases.roll_back(by=person(request), leaving=self.get_object().pk)
        return self._told(back)

    @extend_schema(request=None, responses=ReleaseSerializer)
    @action(detail=True, methods=["post"], permission_classes=changing)
    def shadow(self, request: Request, pk: str = "") -> Response:
        """Let it judge what the one in service judges, in the place of any other that did."""
        shadow = releases.shadow(release=self.get_object(), by=person(request))
        return self._told(shadow)

    @extend_schema(request=None, responses=ReleaseSerializer)
    @action(detail=True, methods=["post"], permission_classes=changing, url_path="end-shadow")
    def end_shadow(self, request: Request, pk: str = "") -> Response:
        """Let it judge no further. Can be repeated."""
        release = self.get_object()
        releases.end_shadow(release=release, by=person(request))
        return self._told(release)

    def _told(self, release: Release) -> Response:
        """As it stands now."""
        return Response(self.get_serializer(self.get_queryset().get(pk=release.pk)).data)


class MayStart(permissions.BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.user.has_perm("dedup.start_job")


class JobSerializer(StrictSerializer):
    by = serializers.CharField(source="by.username", read_only=True, allow_null=True)
    percent = serializers.IntegerField(read_only=True, allow_null=True)

    class Meta:
        model = Job
        fields = [
            "id", "kind", "state", "step", "done", "total", "percent", "seconds_left", "params",
            "result", "failure", "by", "put_at", "started_at", "ended_at",
        ]  # fmt: skip
        read_only_fields = fields


class TrainingRequest(Strict, serializers.Serializer):
    base = serializers.ChoiceField(
        choices=starting.BASES, required=False,
        help_text="`current` goes on from the release in service, `base` begins afresh.",
    )  # fmt: skip
    epochs = serializers.IntegerField(required=False)
    minutes = serializers.FloatField(required=False)
    seed = serializers.IntegerField(required=False)
    precision = serializers.FloatField(required=False, allow_null=True)
    name = Text(required=False, max_length=80)


class JobViewSet(
    Idempotent,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,
):
    """Long work and how far it is: start a training, ask again until `ended_at` is set, `stop`."""

    serializer_class = JobSerializer
    permission_classes = [*APIView.permission_classes, MayStart]
    pagination_class = Newest
    queryset = Job.objects.select_related("by")
    filterset_fields = {"kind": ["exact"], "state": ["exact"]}
    lookup_value_regex = r"[0-9]{1,17}"

    @extend_schema(request=TrainingRequest, responses={202: JobSerializer})
    def create(self, request: Request) -> Response:
        """Let a release be trained from what people decided. 409 `job_runs` where one is,
        `too_few_verdicts` where they decided too little; that says about how many are missing."""
        given = TrainingRequest(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            job = starting.training(by=person(request), **given.validated_data)
        except starting.TooFewVerdicts as few:
            raise Conflict(str(few), code="too_few_verdicts", **few.details) from few
        except starting.StartRefused as refused:
            raise serializers.ValidationError({refused.field: [str(refused)]}) from refused
        except jobs.JobRuns as error:
            running = Job.objects.unfinished().filter(kind=Job.Kind.TRAIN).first()
            raise Conflict(
                "A training waits or runs already.", code="job_runs",
                job=running.pk if running else None,
            ) from error  # fmt: skip
        address = reverse("dedup_api:job-detail", args=[job.pk])
        return Response(self.get_serializer(job).data, status=202, headers={"Location": address})

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str = "") -> Response:
        """Ask that a job ends: at once where it waits, else within seconds. Can be repeated."""
        job = jobs.stop(job=self.get_object(), by=person(request))
        return Response(self.get_serializer(job).data)
