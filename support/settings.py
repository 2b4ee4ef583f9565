"""The only settings file. Each variable of the environment is read once: typed, with a default."""

import json
import os
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from psycopg.conninfo import conninfo_to_dict

from support import logs

BASE_DIR = Path(__file__).resolve().parent.parent
LOCAL_FOLDER = Path(os.environ.get("ASKONCE_FOLDER", BASE_DIR / ".askonce"))  # the demo's data

# What a running demo serves on; a variable that is really set wins over it.
_running = LOCAL_FOLDER / "environment.json"
_environment = {**(json.loads(_running.read_text()) if _running.exists() else {}), **os.environ}


def _text(name: str, default: str = "") -> str:
    return _environment.get(name, default)


def _flag(name: str, *, default: bool = False) -> bool:
    return _text(name, str(default)).lower() in {"1", "true", "yes", "on"}


def _number(name: str, default: float) -> float:
    return float(_text(name, str(default)))


def _list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in _text(name, default).split(",") if item.strip()]


# --- The site ---------------------------------------------------------------------------------

DEBUG = _flag("DEBUG")  # never on where strangers can reach it
SECRET_KEY = _text("SECRET_KEY")  # signs sessions and tokens; at least 50 random characters
ALLOWED_HOSTS = _list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _list("CSRF_TRUSTED_ORIGINS")
SITE_URL = _text("SITE_URL", "http://localhost:8000")  # how mails name the site
HTTPS = _flag("HTTPS", default=True)  # secure cookies, HSTS, redirect; off for a demo on localhost
PROXY_COUNT = int(_number("PROXY_COUNT", 0))  # proxies in front whose X-Forwarded-For is believed
DEMO = _flag("DEMO")  # says so in a banner; its logins need no second factor

# --- Services ---------------------------------------------------------------------------------

DATABASE_URL = _text("DATABASE_URL", "postgresql://askonce@127.0.0.1:5432/askonce")
REDIS_URL = _text("REDIS_URL", "redis://127.0.0.1:6379/0")
EMAIL_URL = _text("EMAIL_URL", "console")  # console, or smtp://user:password@host:port
MAIL_FROM = _text("MAIL_FROM", "AskOnce <support@localhost>")

# --- Finding duplicates -----------------------------------------------------------------------

DEDUP_LEASE_SECONDS = 50.0  # a claim that is not settled by then may be taken by another worker
DEDUP_BATCH = int(_number("DEDUP_BATCH", 16))  # questions that one check claims at once
DEDUP_SHORTLIST = int(_number("DEDUP_SHORTLIST", 50))  # candidates that are scored for a question
DEDUP_FLAGS_PER_QUESTION = int(_number("DEDUP_FLAGS_PER_QUESTION", 5))
# Pairs a question that are asked about though they are below the threshold; 0: none.
DEDUP_SAMPLED_PER_QUESTION = _number("DEDUP_SAMPLED_PER_QUESTION", 0.05)
DEDUP_CHOSEN_PER_DAY = int(_number("DEDUP_CHOSEN_PER_DAY", 10))  # pairs, at most that many wait
DEDUP_SWEEP_SECONDS = _number("DEDUP_SWEEP_SECONDS", 5)  # how often a worker looks for a lost bell
DEDUP_SUGGEST_SECONDS = _number("DEDUP_SUGGEST_SECONDS", 0.3)  # what suggestions may take
# How far a worker that only checks steps back for what else runs there; 0: not at all. With 10 it
# gets about a tenth of a processor that others want too, and all of one that nobody does.
DEDUP_NICENESS = int(_number("DEDUP_NICENESS", 10))
DEDUP_THREADS = int(_number("DEDUP_THREADS", 1))  # processor threads of one worker process
DEDUP_CASCADE = _text("DEDUP_CASCADE")  # a student of the release that reads first; empty: none
# Below which probability the student is believed; as its manifest says where it is empty.
_floor = _text("DEDUP_CASCADE_FLOOR")
DEDUP_CASCADE_FLOOR = float(_floor) if _floor else None
DEDUP_RELEASE = _text("DEDUP_RELEASE", "minilm-l6-2")  # put into service where none is active
DEDUP_ARTIFACTS = Path(_text("DEDUP_ARTIFACTS", str(BASE_DIR / "dedup" / "ml" / "artifacts")))
# Where releases go that this portal makes; among the artifacts where none is named.
DEDUP_RELEASES_FOLDER = _text("DEDUP_RELEASES_FOLDER")
# Checkpoints that a page or a program may take as a release; empty: only names on the hub.
DEDUP_CHECKPOINTS = _text("DEDUP_CHECKPOINTS")
# What a training keeps until it is done: its checkpoints.
DEDUP_TRAINING_FOLDER = Path(_text("DEDUP_TRAINING_FOLDER", str(LOCAL_FOLDER / "training")))
DEDUP_TRAINING_MINUTES = _number("DEDUP_TRAINING_MINUTES", 60)  # that a training may take
# Pairs an hour that a release in the shadow judges beside the one in service; 0: none.
DEDUP_SHADOW_PER_HOUR = int(_number("DEDUP_SHADOW_PER_HOUR", 2000))
DEDUP_TRAINING_MEMORY_MB = int(_number("DEDUP_TRAINING_MEMORY_MB", 4096))  # of a job; 0: any

# --- Alerts -----------------------------------------------------------------------------------

# Who is told by mail that a bound was crossed; empty: admins whose address is confirmed.
ALERT_MAIL = _list("ALERT_MAIL")
ALERT_WEBHOOK = _text("ALERT_WEBHOOK")  # https address that is told too; empty: none
ALERT_WEBHOOK_SECRET = _text("ALERT_WEBHOOK_SECRET")  # whsec_ and base64: signs what is sent there
ALERT_WEBHOOK_PRIVATE = _flag("ALERT_WEBHOOK_PRIVATE")  # may lie in our own network, without https
ALERT_UNCHECKED_SECONDS = _number("ALERT_UNCHECKED_SECONDS", 600)  # a question waits for its check
ALERT_CHECK_SECONDS = _number("ALERT_CHECK_SECONDS", 60)  # of 95 in 100 from asking to checked
ALERT_WORKER_SECONDS = _number("ALERT_WORKER_SECONDS", 300)  # no worker that checks was seen
ALERT_PSI = _number("ALERT_PSI", 0.25)  # scores look otherwise than when the release was new

# --- Django -----------------------------------------------------------------------------------

INSTALLED_APPS = [
    "support.apps.SupportConfig",
    "dedup.apps.DedupConfig",
    "support.apps.PortalAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "csp",
    "django_filters",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "template_partials",
]

MIDDLEWARE = [
    "support.http.RequestLog",
    "support.database.with_patience",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "support.health.without_cookies",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "support.http.LanguageMiddleware",
    "support.http.refuse_unreadable",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "support.page_limits.limit_pages",
    "support.reading.as_the_reader_likes",
    "support.http.require_second_factor",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "support.urls"
WSGI_APPLICATION = "support.wsgi.application"
AUTH_USER_MODEL = "support.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "support.http.site",
            ],
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    parts = conninfo_to_dict(url)
    return {
        "ENGINE": "support.database",
        "NAME": parts["dbname"],
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": str(parts.get("port", "")),
        "OPTIONS": {
            "connect_timeout": 3,
            "application_name": "askonce",
            # A statement ends with whoever waited for it.
            "options": "-c client_connection_check_interval=1s",
        },
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


DATABASES = {"default": _database(DATABASE_URL)}
# Limits and counters live in Postgres, so that they hold without Redis and for all processes.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache",
        "KEY_FUNCTION": "support.caching.hidden_key",
        "OPTIONS": {"MAX_ENTRIES": 10_000},  # beyond that, some are forgotten
    }
}
CELERY_BROKER_URL = REDIS_URL

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "German"), ("ar", "Arabic")]  # what we have all words in
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_COOKIE_HTTPONLY, LANGUAGE_COOKIE_SECURE = True, HTTPS
LANGUAGE_COOKIE_SAMESITE, LANGUAGE_COOKIE_AGE = "Lax", 31_536_000  # seconds
LOCALE_PATHS = [
    BASE_DIR / "support" / "locale",
    BASE_DIR / "support" / "locale" / "libraries",  # where Django and the like lack or mix words
]

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_MANIFEST_STRICT = False

# --- People -----------------------------------------------------------------------------------

PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
    )
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "optional"  # unconfirmed, one hears of nothing (notifications)
ACCOUNT_LOGIN_BY_CODE_ENABLED = True  # how guests come back; a second factor is asked for after it
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 15 * 60  # seconds: mail may be slow
ACCOUNT_FORMS = {
    "request_login_code": "support.forms.LoginCodeForm",
    "reset_password": "support.forms.PasswordResetForm",
}
ACCOUNT_REAUTHENTICATION_TIMEOUT = 5 * 60  # seconds for which somebody has just proved who they are
ACCOUNT_USER_DISPLAY = str
ACCOUNT_ADAPTER = "support.signing_in.AccountAdapter"
# support.page_limits and signing_in count instead; left is how often an address is confirmed.
ACCOUNT_RATE_LIMITS = dict.fromkeys(
    ("login", "login_failed", "signup", "request_login_code", "reset_password",
     "reset_password_from_key", "reauthenticate", "change_password", "manage_email")
)  # fmt: skip
MFA_RATE_LIMITS = False
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_FORMS = {
    "authenticate": "support.forms.CodeForm",
    "reauthenticate": "support.forms.CodeAgainForm",
    "add_webauthn": "support.forms.AddKeyForm",
    "authenticate_webauthn": "support.forms.KeyForm",
    "login_webauthn": "support.forms.KeyLoginForm",
    "reauthenticate_webauthn": "support.forms.KeyAgainForm",
}
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS  # a demo on localhost
SECOND_FACTOR = not DEMO  # agents and admins need one

# --- Mail -------------------------------------------------------------------------------------

_has_server = "://" in EMAIL_URL
_mail = conninfo_to_dict(EMAIL_URL.replace("smtp://", "postgresql://")) if _has_server else {}
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if _mail else EMAIL_URL}.EmailBackend"
EMAIL_HOST = str(_mail.get("host", ""))
EMAIL_PORT = int(_mail.get("port") or 587)
EMAIL_HOST_USER = str(_mail.get("user", ""))
EMAIL_HOST_PASSWORD = str(_mail.get("password", ""))
EMAIL_USE_TLS = bool(_mail)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = MAIL_FROM
MAIL_DIGEST_HOUR = int(_number("MAIL_DIGEST_HOUR", 7))  # when daily mails leave, in TIME_ZONE
# Where replies arrive: the part after the "@" of reply+…@…; empty: none are taken.
INBOUND_DOMAIN = _text("INBOUND_DOMAIN").lower()
INBOUND_URL = _text("INBOUND_URL")  # imaps://user:password@host/folder, where they are fetched

# --- API --------------------------------------------------------------------------------------

API_WRITES_PER_MINUTE = int(_number("API_WRITES_PER_MINUTE", 600))  # of one person
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "support.api_requests.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "support.api_requests.TokenScope",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["support.api_requests.WritesQuota"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["support.api_requests.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "support.api.problem",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "AskOnce",
    "DESCRIPTION": "Questions, the duplicates among them, and merges that can be taken back.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "support.api_schema.add_problems",
    ],
}

# --- Safety -----------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PROXY_COUNT else None
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^healthz/"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True  # forms carry it, no script reads it
SESSION_ENGINE = "django.contrib.sessions.backends.db"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024  # bytes of a request's body; more gets 413
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False  # addresses are personal, and logs outlive an erasure
LOGGING = logs.configure(_text("LOG_LEVEL", "INFO"))
