"""POST /v1/businesses: open a business, if the workspace's plan allows one more.

Admins only. Honours Idempotency-Key. Emits nothing.
"""

from kyora import config, http
from kyora.businesses.create import create
from kyora.businesses.models import Business, NewBusiness


def create_business(call: http.Call, wanted: NewBusiness) -> http.Answer[Business]:
    made = create(call.principal, wanted, call.header("Idempotency-Key"))
    return http.Answer(made, 201, {"Location": f"/v1/businesses/{made.business_id}"})


ROUTES: http.Routes = {"POST /v1/businesses": create_business}
handler = http.entrypoint(ROUTES, config.database_url)
