import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from rmqarq import App, Portal

# in a project of yours: settings.py
settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

# tasks.py
tasks = App(queue="web_django")
portal = Portal(tasks)  # one for the process; it connects at the first call


@tasks.task
def send_mail(order_id: int) -> None:
    print(f"mail for order {order_id}")


# views.py
def order(request: HttpRequest, order_id: int) -> JsonResponse:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("create table if not exists orders (id integer)")
            cursor.execute("insert into orders values (%s)", [order_id])
        # only once the order is there for others to see, and not if it never is
        transaction.on_commit(lambda: portal.call(send_mail.enqueue, order_id))
        if "fail" in request.GET:
            raise ValueError("no such order")
    return JsonResponse({"order": order_id})


# urls.py
urlpatterns = [path("orders/<int:order_id>", order)]

# wsgi.py
web = get_wsgi_application()
