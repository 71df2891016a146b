// Package e2e tests the finished program as an operator meets it: the bridge
// binary as a child process, between a real broker and an emulated workspace,
// over real sockets. Everything is in its tests.
//
// The program is built with the race detector when the tests are. At its end
// each test searches the output of its children, and the pages of their ops
// endpoints that it read, for secrets and tokens.
//
// BRIDGE_LONG_TESTS=1 takes the outages at their full length.
package e2e
