"""Installs, changes and removes an integration with a generated client.

tools/api-clients.sh generates the package `client` from the OpenAPI document and runs this.
"""

import sys
import uuid

from client import AuthenticatedClient
from client.api.default import get_integration, install, list_catalog, list_integrations, remove_integration, update_integration
from client.models import InstallRequest, IntegrationPatch

api = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], raise_on_unexpected_status=True, timeout=60)
request = {
    "name": "Generated " + uuid.uuid4().hex[:8],
    "variant": "default",
    "config": {
        "workspace_url": "https://abc-12345.cloud.databricks.com",
        "client_id": "00000000-0000-0000-0000-000000000000",
        "client_secret": "YOUR_CLIENT_SECRET",
        "catalog": "datafly",
        "schema": "events",
        "table": "generated",
    },
    "delivery_mode": "server_side",
}


def done(response, status):
    if response.status_code != status:
        sys.exit(f"got {response.status_code} {response.content!r}, want {status}")
    return response.parsed


vendor = done(list_catalog.sync_detailed(client=api), 200).data[0]
missing = {f.key for f in vendor.config_fields if f.required} - set(request["config"])
if missing:
    sys.exit(f"the catalog requires {missing}")
made = done(install.sync_detailed("databricks_zerobus", client=api, body=InstallRequest.from_dict(request)), 201).integration
again = done(install.sync_detailed("databricks_zerobus", client=api, body=InstallRequest.from_dict(request)), 409)
if again.error.code != "NAME_TAKEN":
    sys.exit(f"installed twice: {again}")
if made.id not in [i.id for i in done(list_integrations.sync_detailed(client=api, limit=100), 200).data]:
    sys.exit(f"{made.id} is not in the list")
patch = IntegrationPatch.from_dict({"enabled": False})
changed = done(update_integration.sync_detailed(made.id, client=api, body=patch, if_match=f'"{made.revision}"'), 200).integration
done(update_integration.sync_detailed(made.id, client=api, body=patch, if_match=f'"{made.revision}"'), 412)
if changed.enabled or changed.revision != made.revision + 1:
    sys.exit(f"not disabled: {changed}")
done(remove_integration.sync_detailed(made.id, client=api), 200)
done(get_integration.sync_detailed(made.id, client=api), 404)
print(f"generated client: installed, changed and removed {made.id}")
