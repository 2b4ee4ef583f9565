from django.urls import include, path
from rest_framework.routers import SimpleRouter

from dedup import api
from dedup.views import (
    agreement,
    asking,
    card,
    cluster,
    deflection,
    long_work,
    merge_desk,
    monitoring,
    release,
    release_list,
    review_queue,
    thresholds,
    weekly,
)

router = SimpleRouter()
router.register("flags", api.FlagViewSet, basename="flag")
router.register("reviews", api.ReviewViewSet, basename="review")
router.register("merges", api.MergeViewSet, basename="merge")
router.register("releases", api.ReleaseViewSet, basename="release")
router.register("jobs", api.JobViewSet, basename="job")

urlpatterns = [
    path("api/v1/similar/", api.SimilarView.as_view(), name="api_similar"),
    path("api/v1/", include((router.urls, "dedup"), namespace="dedup_api")),
    path("", asking.home, name="home"),
    path("ask/", asking.ask, name="ask"),
    path("ask/similar/", asking.similar, name="similar"),
    path("ask/opened/", asking.opened, name="opened"),
    path("ask/solved/", asking.solved, name="solved"),
    path("questions/<int:pk>/different/", asking.dispute, name="dispute"),
    path("review/", review_queue.show, name="review_queue"),
    path("review/views/", review_queue.save_view, name="review_view_save"),
    path("review/views/<int:pk>/drop/", review_queue.drop_view, name="review_view_drop"),
    path("review/many/", review_queue.decide_many, name="review_many"),
    path("review/overrule/<int:pk>/", review_queue.overrule, name="review_overrule"),
    path("review/next/", card.next_card, name="review_next"),
    path("review/ahead/", card.ahead, name="review_ahead"),
    path("review/hold/", card.hold, name="review_hold"),
    path("review/let-go/", card.let_go, name="review_let_go"),
    path("review/<int:pk>/", card.card, name="review_card"),
    path("review/<int:pk>/take-over/", card.take_over, name="review_take_over"),
    path("review/<int:pk>/decide/", card.decide, name="review_decide"),
    path("review/<int:pk>/cluster/", cluster.show, name="review_cluster"),
    path("review/<int:pk>/cluster/decide/", cluster.decide, name="review_cluster_decide"),
    path("review/undo/<int:pk>/", card.undo, name="review_undo"),
    path("manage/agreement/", agreement.show_agreement, name="agreement"),
    path("manage/deflection/", deflection.show_deflection, name="deflection"),
    path("manage/releases/", release_list.show, name="releases"),
    path("manage/releases/back/", release_list.roll_back, name="roll_back"),
    path("manage/releases/<int:pk>/promote/", release_list.promote, name="promote"),
    path("manage/releases/<int:pk>/shadow/", release_list.shadow, name="shadow"),
    path("manage/releases/recheck/", release_list.recheck, name="start_recheck"),
    path("manage/jobs/", long_work.show_jobs, name="jobs"),
    path("manage/jobs/backfill/", long_work.start_backfill, name="start_backfill"),
    path("manage/jobs/train/", long_work.start_training, name="start_training"),
    path("manage/jobs/adopt/", long_work.start_adopt, name="start_adopt"),
    path("manage/jobs/<int:pk>/", long_work.show_job, name="job"),
    path("manage/jobs/<int:pk>/stop/", long_work.stop_job, name="stop_job"),
    path("manage/releases/<int:pk>/", release.show, name="release"),
    path("manage/releases/<int:pk>/evaluate/", release.evaluate, name="release_evaluate"),
    path("manage/releases/<int:pk>/zip/", release.download, name="release_download"),
    path("manage/releases/<int:pk>/card/", release.card, name="release_card"),
    path("manage/thresholds/", thresholds.show, name="thresholds"),
    path("manage/thresholds/move/", thresholds.move, name="threshold_move"),
    path("manage/thresholds/<int:pk>/take-back/", thresholds.take_back, name="threshold_take_back"),
    path("manage/report/", weekly.show, name="audit_week"),
    path("manage/monitoring/", monitoring.show, name="monitoring"),
    path("manage/monitoring/again/<int:pk>/", monitoring.redeliver, name="redeliver"),
    path("manage/merges/", merge_desk.to_merge, name="to_merge"),
    path("manage/merges/merge/", merge_desk.merge_many, name="merge_many"),
    path("manage/merges/undo/", merge_desk.unmerge_many, name="unmerge_many"),
    path("manage/send-back/<int:pk>/", merge_desk.send_back, name="send_back"),
    path("manage/link/<int:duplicate_pk>/<int:canonical_pk>/", merge_desk.link, name="link"),
    path("manage/merge/<int:pk>/", merge_desk.merge_other, name="merge_other"),
    path("manage/merge/<int:duplicate_pk>/<int:canonical_pk>/", merge_desk.merge, name="merge"),
    path("manage/unmerge/<int:pk>/", merge_desk.unmerge, name="unmerge"),
]
