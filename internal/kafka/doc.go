// Package kafka says what to do about an error code of Kafka. It holds values
// only: it connects to nothing and knows no other package of this module.
package kafka
