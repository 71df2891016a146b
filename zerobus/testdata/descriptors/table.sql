-- A column of every type that a protobuf row can hold. descriptor_golden_test.go
-- says how the files beside this one were made from it.
CREATE TABLE datafly.events.stream (
  message_id STRING NOT NULL,
  name VARCHAR(9),
  code CHAR(3),
  tiny TINYINT,
  small SMALLINT,
  whole INT,
  big BIGINT NOT NULL,
  ratio FLOAT,
  exact_ratio DOUBLE,
  flag BOOLEAN,
  raw BINARY,
  day DATE,
  event_timestamp TIMESTAMP,
  local_time TIMESTAMP_NTZ,
  price DECIMAL(10,2),
  payload VARIANT,
  tags ARRAY<STRING>,
  counts ARRAY<BIGINT>,
  labels MAP<STRING,STRING>,
  by_code MAP<INT,DOUBLE>,
  ctx STRUCT<ip: STRING, geo: STRUCT<lat: DOUBLE NOT NULL, places: ARRAY<STRING>>, props: MAP<STRING,STRUCT<v: STRING>>, hops: ARRAY<STRUCT<n: INT>>> NOT NULL,
  items ARRAY<STRUCT<sku: STRING NOT NULL, n: INT, price: DECIMAL(5,1)>>,
  things MAP<INT,STRUCT<v: STRING, at: TIMESTAMP NOT NULL, raw: BINARY>>
) USING DELTA;
