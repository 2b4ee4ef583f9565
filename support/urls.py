from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from support import account, api, guest_views, guide_views, health, views

urlpatterns = [
    path("", include("dedup.urls")),
    path("questions/<int:pk>/", views.question, name="question"),
    path("questions/<int:pk>/edit/", views.edit, name="edit_question"),
    path("questions/<int:pk>/answer/", views.answer, name="answer"),
    path("questions/<int:pk>/vote/", views.vote, name="vote"),
    path("questions/<int:pk>/follow/", views.follow, name="follow"),
    path("questions/<int:pk>/follow-by-mail/", guest_views.follow, name="guest_follow"),
    path("confirm/", guest_views.sent, name="confirm_sent"),
    path("confirm/<str:token>/", guest_views.confirm, name="confirm"),
    path("questions/<int:pk>/accept/<int:answer_pk>/", views.accept, name="accept"),
    path("answers/<int:pk>/vote/", views.answer_vote, name="answer_vote"),
    path("mail/unsubscribe/<slug:token>/", views.unsubscribe, name="unsubscribe"),
    path("mine/", views.mine, name="mine"),
    path("account/", account.preferences, name="preferences"),
    path("account/keys/", account.use_keys, name="use_keys"),
    path("account/export/", account.export, name="export"),
    path("account/erase/", account.erase, name="erase"),
    path("guides/", guide_views.list_guides, name="guides"),
    path("guides/<slug:audience>/<slug:slug>/", guide_views.guide, name="guide"),
    path("accounts/", include("allauth.urls")),
    path("language/", account.choose_language, name="set_language"),
    path("admin/", admin.site.urls),
    path("api/v1/", include((api.router.urls, "api"))),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api_docs"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
]

handler400 = "support.http.bad_request"
handler404 = "support.http.not_found"
handler500 = "support.http.failed"
