curl -X POST http://localhost:8084/v1/admin/integration-catalog/databricks_zerobus/install \
-H "Authorization: Bearer YOUR_TOKEN" \
-H "Content-Type: application/json" \
-d '{
"name": "Databricks (Zerobus Ingest)",
"variant": "default",
"config": {
"workspace_url": "https://abc-12345.cloud.databricks.com",
"client_id": "00000000-0000-0000-0000-000000000000",
"client_secret": "YOUR_CLIENT_SECRET",
"catalog": "datafly",
"schema": "events",
"table": "stream"
},
"delivery_mode": "server_side"
}'
