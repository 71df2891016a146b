package main

import (
	"maps"
	"testing"
)

// What began on a broker counts, by its outcome, and so does what this release lacks.
// Tests without a broker and those that only hold others do not.
func TestTestsOnApacheKafkaAreCounted(t *testing.T) {
	const events = `{"Action":"start","Package":"p"}
{"Action":"run","Test":"TestUnit"}
{"Action":"pass","Test":"TestUnit"}
{"Action":"pass","Test":"TestRuns/apache"}
{"Action":"pass","Test":"TestRuns"}
{"Action":"output","Test":"TestFails/apache","Output":"    a_test.go:3: got 1 row, want 2\n"}
{"Action":"fail","Test":"TestFails/apache"}
{"Action":"fail","Test":"TestFails"}
{"Action":"output","Test":"TestNew/apache","Output":"    a_test.go:3: Apache Kafka 3.9.2 lacks a protocol, new in 4.0\n"}
{"Action":"output","Test":"TestNew/apache","Output":"--- SKIP: TestNew/apache (0.00s)\n"}
{"Action":"skip","Test":"TestNew/apache"}
{"Action":"output","Test":"TestSASL/apache","Output":"    a_test.go:3: Apache Kafka 3.9.2 lacks a protocol, new in 4.0\n"}
{"Action":"skip","Test":"TestSASL/apache"}
{"Action":"output","Test":"TestACL/apache","Output":"=== CONT TestACL/apache\n"}
{"Action":"output","Test":"TestACL/apache","Output":"    a_test.go:3: no ACLs: none here\n"}
{"Action":"skip","Test":"TestACL/apache"}
{"Action":"output","Test":"TestFake/kfake","Output":"    a_test.go:3: skipped on kfake\n"}
{"Action":"skip","Test":"TestFake/kfake"}
{"Action":"fail","Package":"p"}`
	o := outcome{why: make(map[string]int)}
	started := map[string]bool{"TestRuns/apache": true, "TestFails/apache": true, "TestNew/apache": true, "TestACL/apache": true}
	if err := o.read(t.Output(), []byte(events), started, "3.9.2"); err != nil {
		t.Fatal(err)
	}
	if o.passed != 1 || o.failed != 1 || o.skipped != 3 {
		t.Errorf("got %s, want 1 passed, 1 failed, 3 skipped", o)
	}
	if want := map[string]int{"it lacks a protocol, new in 4.0": 2, "no ACLs: none here": 1}; !maps.Equal(o.why, want) {
		t.Errorf("got the reasons %v, want %v", o.why, want)
	}
}
