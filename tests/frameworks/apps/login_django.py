"""Django behind its own sessions: the list of each user, found by a session cookie."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="secret" * 10,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
kept = {}


def ready(_):
    return JsonResponse({})


def login(request):
    request.session["name"] = request.GET["name"]
    return JsonResponse({})


def orders(request):
    name = request.session.get("name")
    if name is None:
        return HttpResponse(status=401)
    if request.method == "POST":
        kept.setdefault(name, []).append("an order")
        return JsonResponse({"user": name}, status=201)
    return JsonResponse({"user": name, "orders": kept.get(name, [])})


def quotes(request):
    return JsonResponse({"quotes": {"ACME": 42}}) if "name" in request.session else HttpResponse(status=401)


urlpatterns = [path("ready", ready), path("login", login), path("api/orders", orders), path("api/quotes", quotes)]
application = get_wsgi_application()
