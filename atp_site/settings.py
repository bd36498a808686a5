"""Settings of the hub. The embedded hub needs none of these variables.

ATP_DATA_DIR            folder of the database, the secrets and the lock file; var
ATP_HOST                address to listen on; 127.0.0.1
ATP_PORT                port to listen on; 8000
ATP_PUBLIC_URL          how others reach the hub; http://127.0.0.1:ATP_PORT. With https, cookies
                        are secure and HSTS is on
ATP_ALLOWED_HOSTS       further host names of it, comma-separated
ATP_TRUSTED_PROXIES     addresses or networks of proxies that the hub believes about the client's
                        address and TLS, comma-separated; 127.0.0.1
ATP_DATABASE_URL        postgres://user:password@host/name; an SQLite file in ATP_DATA_DIR
ATP_REDIS_URL           redis://host/0, the layer between nodes; memory of this process
ATP_BROKER_URL          redis:// or amqp://, the queue of Celery's workers; tasks run in the hub
ATP_BROKER_QUEUE_TYPE   classic or quorum: type of the queue on RabbitMQ; classic
ATP_ENGINE_TLS          verify or unverified: certificates of the three engines above; verify
ATP_ENGINE_CA_FILE      file with the root certificates that vouch for them; those of the system
ATP_SECRET_KEY          signs sessions and forms; made in ATP_DATA_DIR, on PostgreSQL or with a
                        broker none
ATP_SECRET_KEY_OLD      the secret key before it, while sessions and forms that it signed are in use
ATP_KEY_ENCRYPTION_KEY  32 bytes in base64url, encrypt the keys the hub holds; made in ATP_DATA_DIR,
                        on PostgreSQL or with a broker none
ATP_KEY_ENCRYPTION_KEY_OLD  the key before it, until `manage.py reseal_keys` has run
ATP_EXPORT_DIR          folder of the files of large exports, the same for nodes and workers;
                        ATP_DATA_DIR/exports
ATP_STATIC_DIR          where collectstatic puts files for a proxy to serve; ATP_DATA_DIR/static
ATP_RETENTION           what of the trail is erased when: a preset or rules; nothing
ATP_DEBUG               tracebacks in the browser, for development only; false
ATP_LOG_LEVEL           DEBUG, INFO, WARNING or ERROR; INFO
ATP_LOG_FORMAT          line for people or json for a collector; line
ATP_METRICS_TOKEN       bearer token that /metrics asks for; without one it answers this machine

The default follows the semicolon. Secrets and engine URLs can also be given as files, by the same
names with _FILE.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext

from atp_site import engine_tls, engines, env, logs

django_stubs_ext.monkeypatch()  # lets the admin's base classes take type arguments

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Names and addresses -------------------------------------------------------------------------

ATP_DATA_DIR = env.data_dir("ATP_DATA_DIR", BASE_DIR / "var")
ATP_HOST = env.address("ATP_HOST", "127.0.0.1")
ATP_PORT = env.env_int("ATP_PORT", 8000, least=1, most=65535)
ATP_PUBLIC_URL = env.public_url("ATP_PUBLIC_URL", f"http://127.0.0.1:{ATP_PORT}")
ATP_TRUSTED_PROXIES = env.networks("ATP_TRUSTED_PROXIES")
ATP_METRICS_TOKEN = env.token("ATP_METRICS_TOKEN")
ATP_RETENTION = env.env_text("ATP_RETENTION", "")  # read by registry/trail/retention.py

DEBUG = env.env_bool("ATP_DEBUG", default=False)

_database_url = env.env_secret("ATP_DATABASE_URL")
_redis_url = env.env_secret("ATP_REDIS_URL")
_broker_url = env.env_secret("ATP_BROKER_URL")
_shared = engines.are_shared(_database_url, _broker_url)

SECRET_KEY = env.secret_of_hub("ATP_SECRET_KEY", ATP_DATA_DIR, shared=_shared)
SECRET_KEY_FALLBACKS = [key for key in [env.env_secret("ATP_SECRET_KEY_OLD")] if key]
ATP_KEY_ENCRYPTION_KEY = env.decode_key(
    env.secret_of_hub("ATP_KEY_ENCRYPTION_KEY", ATP_DATA_DIR, shared=_shared),
    name="ATP_KEY_ENCRYPTION_KEY",
)
ATP_KEY_ENCRYPTION_KEY_OLD = env.key_or_none("ATP_KEY_ENCRYPTION_KEY_OLD")

# --- Limits of the hub -------------------------------------------------------------------------
# Everything that can grow has a limit here, in frames and in bytes
# (docs/design/reliability.md#bounds).

ATP_MAX_ENVELOPE_BYTES = 524_288  # canonical form; docs/protocol.md#the-envelope
ATP_MAX_FRAME_BYTES = 1_048_576  # of a WebSocket message, both ways; docs/protocol.md#frames
ATP_MAX_FRAMES = 256  # in one message, both ways; docs/protocol.md#frames
ATP_WINDOW = 256  # envelopes of a socket without a receipt; beyond it, the socket is not read
ATP_DELIVERY_WINDOW = 256  # deliveries of a stream sent and not taken; beyond it, they wait
ATP_INBOX_LIMIT = 10_000  # waiting deliveries of one recipient; beyond it, flow.recipient_full

ATP_HANDSHAKE_SECONDS = 10  # from connecting to a valid proof; docs/protocol.md#connecting
ATP_MAX_HANDSHAKES = 1_000  # sockets of a node that have not authenticated yet
ATP_MAX_SOCKETS = 10_000  # sockets of a node
ATP_DENIALS_PER_MINUTE = 60  # of one sender, with row and entry; more are counted
ATP_DENIALS_PER_HOUR = 600
ATP_LOGINS_PER_MINUTE = 30  # of one agent; each leaves entries in the trail
ATP_SEND_ONLY_SESSIONS = 8  # of one agent at once, beside the session that takes its mail

ATP_BATCH_ENVELOPES = 256  # in one task and transaction; docs/design/architecture.md#why-lanes, 2
ATP_BATCH_BYTES = 1_048_576
# The time until a lane sends a batch again; docs/design/architecture.md#when-a-batch-goes-wrong
ATP_OUTCOME_SECONDS = 5
# Above it, a layer message has no deliveries; docs/design/architecture.md#why-lanes, 6
ATP_LUGGAGE_BYTES = 1_048_576
ATP_BUSY_AFTER_SECONDS = 10  # without database or workers, then senders get flow.busy
ATP_EXECUTOR_THREADS = 8  # for database work and embedded tasks, besides the event loop

ATP_POLL_SECONDS = 2.0  # between two reads of rows whose push was lost
# Between two reads of the epoch by a node; docs/design/trust.md#revocation
ATP_EPOCH_POLL_SECONDS = 0.25
ATP_EPOCH_BLIND_SECONDS = 0.75  # without a read of the epoch, then a node stops delivering
ATP_LEASE_SECONDS = 10.0  # without a renewal, then the node counts as dead
ATP_LEASE_RENEW_SECONDS = 2.0
# In which an agent's process may come back after a broken connection and go on with what it has.
# Both sides notice a silent break within 40 s; the one may be 20 s later than the other.
ATP_RETURN_SECONDS = 30.0
ATP_START_SECONDS = 60  # the longest wait of a starting process for services that start too
# The longest wait for an answer to a statement of a node or of a task; then the connection
# counts as dead. Longer than any wait for a lock, shorter than what agents may have to wait for.
ATP_ANSWER_SECONDS = 8.0
ATP_TRAIL_LOCK_SECONDS = 5  # the longest wait for the log lock; then the batch is not accepted

# --- Engines -----------------------------------------------------------------------------------

ATP_ENGINE_TLS = env.env_choice("ATP_ENGINE_TLS", "verify", *engine_tls.MODES)
_ca_file = env.existing_file("ATP_ENGINE_CA_FILE")

DATABASES = {
    "default": engines.database(_database_url, ATP_DATA_DIR, tls=ATP_ENGINE_TLS, ca_file=_ca_file)
}
CHANNEL_LAYERS = {
    "default": engines.channel_layer(_redis_url, tls=ATP_ENGINE_TLS, ca_file=_ca_file)
}

CELERY_BROKER_URL = engines.broker(_broker_url)
CELERY_BROKER_USE_SSL = engine_tls.broker(CELERY_BROKER_URL, ATP_ENGINE_TLS, _ca_file)
CELERY_TASK_ALWAYS_EAGER = not _broker_url
# Of one node; half are for small batches (messaging/node/lanes.py). Verifying and writing release
# the interpreter's lock, so two batches at once give 1.7 times the rate on two cores.
ATP_BATCHES_UNDER_WAY = 4 if _broker_url else 2
_queue_type = env.env_choice("ATP_BROKER_QUEUE_TYPE", "classic", *engines.QUEUE_TYPES)
_queue = engines.task_queue(CELERY_BROKER_URL, _queue_type)
CELERY_TASK_QUEUES = [_queue]
CELERY_TASK_DEFAULT_QUEUE = CELERY_TASK_DEFAULT_EXCHANGE = _queue.name
CELERY_TASK_DEFAULT_ROUTING_KEY = _queue.routing_key
CELERY_TASK_SERIALIZER = "msgpack"  # envelopes are sent as bytes
CELERY_ACCEPT_CONTENT = ["msgpack", "json"]
CELERY_TASK_IGNORE_RESULT = True  # outcomes go over the channel layer and into the database
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True  # acks_late alone still acks when the child is killed
CELERY_TASK_TIME_LIMIT = 120  # seconds; a task that takes longer hangs
CELERY_TASK_PUBLISH_RETRY = False  # lanes send again themselves, and must not block
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 10_000
CELERY_DB_REUSE_MAX = CELERY_WORKER_MAX_TASKS_PER_CHILD  # otherwise each task opens a connection
CELERY_WORKER_CONSUMER = "messaging.process.worker_consumer:SteadyConsumer"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_TIMEOUT = engines.CONNECT_SECONDS
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # no limit: a broker can be away for long
CELERY_BROKER_CHANNEL_ERROR_RETRY = True  # a Redis that is read-only or full counts as away
CELERY_BROKER_TRANSPORT_OPTIONS = engines.broker_options(CELERY_BROKER_URL)
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "messaging.periodic.beat:LastingScheduler"
_beat_seconds = {
    "messaging.tasks.sweep": 5,
    "registry.carry_on_decisions": 10,
    "registry.carry_on_exports": 10,
    "messaging.tasks.credit_traffic": 15,
    "registry.summarise_refusals": 60,
    "registry.watch_log": 60,
    "registry.refresh_scores": 900,
    "registry.verify_attestations": 3600,
    "registry.erase_expired": 3600,
}
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # A task that still waits when its next run is due expires.
    name: {"task": name, "schedule": seconds, "options": {"expires": seconds}}
    for name, seconds in _beat_seconds.items()
}

# --- Django ------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "registry",  # first: its createsuperuser and changepassword stand before Django's
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "messaging",
    "atp_site",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "atp_site.headers.security_headers",
    "atp_site.unreadable.refuse_unreadable",
    "atp_site.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
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
            ]
        },
    }
]
ROOT_URLCONF = "atp_site.urls"
ASGI_APPLICATION = "atp_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["registry.officers.hashing.BoundedPBKDF2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"  # where `next` leads to another host
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["atp_site.formats"]  # dates with their time zone
STATIC_URL = "static/"
STATIC_ROOT = Path(env.env_text("ATP_STATIC_DIR", str(ATP_DATA_DIR / "static")))
ATP_EXPORT_DIR = Path(env.env_text("ATP_EXPORT_DIR", str(ATP_DATA_DIR / "exports")))
if STATIC_ROOT.is_relative_to(ATP_DATA_DIR):
    STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns if it is missing
WHITENOISE_USE_FINDERS = True  # no collectstatic before the first start
WHITENOISE_ALLOW_ALL_ORIGINS = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * ATP_MAX_FRAME_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000  # a policy of a few hundred rules is one form

# --- Security ----------------------------------------------------------------------------------

_public = urlsplit(ATP_PUBLIC_URL)
_https = _public.scheme == "https"

ALLOWED_HOSTS = sorted(
    {"127.0.0.1", "localhost", "[::1]", _public.hostname or ""}
    | set(env.env_list("ATP_ALLOWED_HOSTS", []))
)
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"]
# The names contain the port, because a browser shares cookies between the ports of a host.
SESSION_COOKIE_NAME = f"atp_session_{_public.port or ATP_PORT}"
CSRF_COOKIE_NAME = f"atp_csrf_{_public.port or ATP_PORT}"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_AGE = 8 * 3600  # seconds; an officer's working day
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = _https
# Requested by probes and Prometheus without TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$", r"^api/v1/health$"]
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https

# --- API ---------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    # Views use registry.api.auth for tokens. Named here, it would make an import cycle with
    # rest_framework.views.
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "DEFAULT_SCHEMA_CLASS": "registry.api.schema.ProblemSchema",
    "PAGE_SIZE": 100,
    # Throttles use the client's address, which uvicorn takes from ATP_TRUSTED_PROXIES only.
    "NUM_PROXIES": 0,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Agent Trust Protocol hub",
    "DESCRIPTION": "The registry, the inbox and the trail of one hub.",
    "OAS_VERSION": "3.1.0",  # 3.0 has no null that every generator of clients understands
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    # The hub serves the page's scripts: an auditor's network may reach no other server.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "AgentStatus": "registry.agents.models.Agent.Status",
        "KeyStatus": "registry.agents.models.AgentKey.Status",
    },
}

# --- Logs --------------------------------------------------------------------------------------

_log_level = env.env_choice("ATP_LOG_LEVEL", "INFO", "DEBUG", "INFO", "WARNING", "ERROR")
_log_format = env.env_choice("ATP_LOG_FORMAT", "line", *logs.FORMATS)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {name: {"()": formatter} for name, formatter in logs.FORMATS.items()},
    "filters": {"refusals": {"()": logs.OneLineOfRefusals}},
    "handlers": {
        "stderr": {
            "class": "atp_site.logs.SparingHandler",
            "stream": sys.stderr,
            "formatter": _log_format,
            "filters": ["refusals"],
        }
    },
    "root": {"handlers": ["stderr"], "level": _log_level},
    "loggers": {
        "django": {"handlers": [], "propagate": True, "level": "INFO"},
        "django.request": {"level": "ERROR"},  # a refused request is counted, not logged
        "django.server": {"handlers": [], "propagate": True},
        "uvicorn": {"level": "WARNING"},
        "celery": {"level": "INFO"},  # DEBUG logs the arguments of tasks
        "celery.app.trace": {"level": "WARNING"},  # otherwise one line for every batch
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "amqp": {"level": "INFO"},
        "kombu": {"level": "INFO"},
        "redis": {"level": "INFO"},
        "urllib3": {"level": "INFO"},  # the client that sends traces
    },
}
