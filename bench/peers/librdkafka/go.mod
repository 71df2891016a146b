module github.com/datafly/bridge/bench/peers/librdkafka

go 1.26.0

require (
	github.com/confluentinc/confluent-kafka-go/v2 v2.11.1
	github.com/datafly/bridge/bench v0.0.0
)

replace github.com/datafly/bridge/bench => ../..

replace github.com/datafly/bridge => ../../..
