"""Django: what it makes of a request, route by route."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.translation import get_language_from_request

from overrides import FORWARDING, overridden

settings.configure(
    ALLOWED_HOSTS=["*"],
    APPEND_SLASH=True,
    CSRF_TRUSTED_ORIGINS=["https://localhost:*"],
    LANGUAGE_CODE="en",
    LANGUAGES=[("en", "English"), ("de", "Deutsch"), ("fr", "Français")],
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="secret" * 10,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_X_FORWARDED_HOST=True,
)


def query(request):
    return {name: request.GET.getlist(name) for name in request.GET}


def stocks(request, name):
    return JsonResponse({"route": "deleted" if request.method == "DELETE" else "stocks", "name": name})


def project(_, id):
    return JsonResponse({"route": "project", "id": id})


def file(_, id, file):
    return JsonResponse({"route": "file", "id": id, "file": file})


def static(_, path):
    return JsonResponse({"route": "static", "path": path})


def cached(request, path):
    return JsonResponse({"route": "cached", "path": path, "query": query(request)}, headers={"Cache-Control": "max-age=60"})


def links(request):
    further = {name: request.headers[name] for name in FORWARDING if name in request.headers}
    return JsonResponse({"route": "links", "link": request.build_absolute_uri("/links"), "further": further})


def search(request):
    return JsonResponse({"route": "search", "query": query(request)})


def theme(request):
    return JsonResponse({"route": "theme", "theme": request.COOKIES.get("theme")})


def cookies(request):
    headers = {"Cache-Control": "public, max-age=60", "Vary": "Cookie"}
    return JsonResponse({"route": "cookies", "cookies": request.COOKIES}, headers=headers)


def private(request):
    answer = JsonResponse({"route": "private", "user": request.session.get("user")})
    answer["Cache-Control"] = "private, max-age=60"
    return answer


def whoami(request):
    fields = request.headers
    token = request.GET.get("access_token")
    return JsonResponse({"route": "whoami", "authorization": fields.get("Authorization"), "key": fields.get("X-API-Key"), "token": token})


def greet(request):
    language = get_language_from_request(request)
    headers = {"Cache-Control": "max-age=60", "Content-Language": language, "Vary": "Accept-Language"}
    return JsonResponse({"route": "greet", "language": language}, headers=headers)


def large(_):
    return JsonResponse({"route": "large", "text": "large " * 500}, headers={"Cache-Control": "max-age=60"})


def me(request):
    user = request.session.get("user")
    return JsonResponse({"route": "me", "user": user}, status=200 if user else 401)


def login(request):
    request.session["user"] = request.GET["user"]
    get_token(request)  # sets the cookie of the CSRF protection
    answer = JsonResponse({"route": "login"})
    for number in range(int(request.GET.get("cookies", "0"))):
        answer.set_cookie(f"_ga_{number}", f"GS1.1.{number}")
    return answer


def note(request):
    """A form: Django refuses it without the cookie and the field of its CSRF protection."""
    return JsonResponse({"route": "note", "user": request.session.get("user")})


def page(_):
    return HttpResponse("<!doctype html><title>a page</title>", headers={"Cache-Control": "no-store"})


def missing(request, exception):
    return JsonResponse({"route": "none", "path": request.path}, status=404)


handler404 = missing
urlpatterns = [
    path("", page),
    path("api/<str:name>", stocks),
    path("projects/<str:id>", project),
    path("projects/<str:id>/<str:file>", file),
    path("static/<path:path>", static),
    path("cached/<path:path>", cached),
    path("links", links),
    path("search", search),
    path("only", search),
    path("theme", theme),
    path("cookies", cookies),
    path("account/me", me),
    path("me", me),
    path("large", large),
    path("private", private),
    path("whoami", whoami),
    path("greet", greet),
    path("login", login),
    path("note", note),
]
application = overridden(get_wsgi_application())
