-- The tables of docker-compose.yml, as bridge ddl prints them for its two integrations.
CREATE TABLE IF NOT EXISTS `datafly`.`events`.`stream` (
  `event_name` STRING,
  `event_type` STRING,
  `message_id` STRING,
  `user_id` STRING,
  `anonymous_id` STRING,
  `event_timestamp` TIMESTAMP,
  `ip_address` STRING,
  `user_agent` STRING,
  `locale` STRING,
  `timezone` STRING,
  `page_url` STRING,
  `page_referrer` STRING,
  `source_id` STRING
) USING DELTA;
CREATE TABLE IF NOT EXISTS `datafly`.`events`.`orders` (
  `event_name` STRING,
  `event_type` STRING,
  `message_id` STRING,
  `user_id` STRING,
  `anonymous_id` STRING,
  `event_timestamp` TIMESTAMP,
  `ip_address` STRING,
  `user_agent` STRING,
  `locale` STRING,
  `timezone` STRING,
  `page_url` STRING,
  `page_referrer` STRING,
  `source_id` STRING,
  `revenue` DECIMAL(12,2)
) USING DELTA;
