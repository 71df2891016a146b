// Package kafkatest gives tests, benchmarks and demonstrations a Kafka to talk
// to over real loopback sockets: Apache Kafka itself, started as child
// processes in KRaft mode without a container, and kfake, the in-process broker
// of the franz-go project, behind the same small interface.
//
// Most tests want [Each], which runs one body on both. A test binary that uses
// Each or [Start] should hand its TestMain to [Main], so that the tests share one
// Apache cluster instead of starting one each:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
//
//	func TestDelivery(t *testing.T) {
//		kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
//			topic := kafkatest.Topic(t, b, 3)
//			...
//		})
//	}
//
// To have a broker by hand: go run ./internal/kafkatest/kafka.
//
// Environment:
//
//   - REQUIRE_APACHE_KAFKA=1 turns the skip of the Apache tests on a machine
//     without Java or Maven into a failure.
//   - KAFKATEST_CACHE is the folder that holds Kafka's jars, by default
//     .cache/kafka in the module root.
//   - KAFKATEST_COUNT_FILE names a file to which every test that ran on Apache
//     Kafka appends one line: the version and the test's name.
//
// The package runs on Linux and macOS. On Linux the brokers die with the test
// process however it ends; elsewhere a test process killed by SIGKILL leaves
// them behind.
package kafkatest
