package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafkatest"
)

// A replay that fails after it has committed, or in the middle, is in the audit,
// too: the offsets may be others now.
func TestFailedReplayIsAudited(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	var committed atomic.Bool
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		committed.Store(true)
		return nil, nil, false
	})
	fake.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if !committed.Load() {
			return nil, nil, false
		}
		return kafkatest.RefusedOffsets(r.(*kmsg.OffsetFetchRequest), kerr.GroupAuthorizationFailed), nil, true
	})
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("kafka: {brokers: ["+fake.ListenAddrs()[0]+"], topics: [events]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := execute([]string{"replay", "--config", file, "--to", "earliest", "--execute", "--reason", "a fixed blueprint"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitFailed || !committed.Load() {
		t.Fatalf("got exit code %d, committed %v and %q, want a failure after the commit", code, committed.Load(), stderr.String())
	}
	for _, want := range []string{"replay: failed; its offsets may be committed", `"reason":"a fixed blueprint"`, `"by":"`, "events/0:none->0"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("got %q, want %q in it", stderr.String(), want)
		}
	}
}
