// Package kafka connects to a cluster (TLS, SASL), explains the errors of its
// brokers with a remedy for each code, and looks up what exists there: topics,
// offsets, groups. It delivers nothing and knows no rows.
package kafka
