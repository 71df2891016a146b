"""Ingests rows with the official SDK, as JSON and as protobuf. See main.go."""

import json
import os

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from zerobus import FederatedToken
from zerobus.sdk.shared import TableProperties
from zerobus.sdk.sync import ZerobusSdk

TABLE = os.environ["SDK_TABLE"]
ROWS = int(os.environ["SDK_ROWS"])
CLIENT_ID = os.environ["SDK_CLIENT_ID"]


def row_class():
    file = descriptor_pb2.FileDescriptorProto(name="row.proto", syntax="proto2")
    message = file.message_type.add(name="Row")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="message_id", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(name="event_timestamp", number=2, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Row"))


def ingest(properties, encode, **credentials):
    sdk = ZerobusSdk(os.environ["SDK_ENDPOINT"], os.environ["SDK_WORKSPACE"])
    stream = sdk.create_stream(table_properties=properties, **credentials)
    try:
        for n in range(ROWS):
            stream.ingest_record_offset(encode(n))
        stream.flush()
    finally:
        stream.close()


secret = {"client_id": CLIENT_ID, "client_secret": os.environ["SDK_CLIENT_SECRET"]}
federated = {"auth": FederatedToken(idp_token_supplier=lambda: os.environ["SDK_JWT"], databricks_client_id=CLIENT_ID)}
Row = row_class()


def as_json(prefix):
    return lambda n: json.dumps({"message_id": f"{prefix}-{n}", "event_timestamp": 1760000000000000 + n})


ingest(TableProperties(TABLE), as_json("sdk-json"), **secret)
ingest(
    TableProperties(TABLE, Row.DESCRIPTOR),
    lambda n: Row(message_id=f"sdk-protobuf-{n}", event_timestamp=1760000000000000 + n).SerializeToString(),
    **secret,
)
ingest(TableProperties(TABLE), as_json("sdk-exchanged"), **federated)
