from django.urls import include, path
from rest_framework.routers import SimpleRouter

from dedup import api, views

router = SimpleRouter()
router.register("flags", api.FlagViewSet, basename="flag")
router.register("reviews", api.ReviewViewSet, basename="review")
router.register("merges", api.MergeViewSet, basename="merge")
router.register("releases", api.ReleaseViewSet, basename="release")

urlpatterns = [
    path("api/v1/similar/", api.SimilarView.as_view(), name="api_similar"),
    path("api/v1/", include((router.urls, "dedup"), namespace="dedup_api")),
    path("", views.home, name="home"),
    path("ask/", views.ask, name="ask"),
    path("ask/similar/", views.similar, name="similar"),
    path("questions/<int:pk>/different/", views.dispute, name="dispute"),
    path("review/", views.queue, name="review_queue"),
    path("review/next/", views.next_card, name="review_next"),
    path("review/<int:pk>/", views.card, name="review_card"),
    path("review/<int:pk>/decide/", views.decide, name="review_decide"),
    path("review/undo/<int:pk>/", views.undo, name="review_undo"),
    path("manage/merges/", views.to_merge, name="to_merge"),
    path("manage/merge/<int:duplicate_pk>/<int:canonical_pk>/", views.merge, name="merge"),
    path("manage/unmerge/<int:pk>/", views.unmerge, name="unmerge"),
]
