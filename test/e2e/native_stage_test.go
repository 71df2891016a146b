package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// native turns the stage's configuration to a transport of the Zerobus
// endpoint; more are further lines of the section zerobus. It is called once
// per stage, after the last write.
func (s *stage) native(transport string, more ...string) {
	s.t.Helper()
	must(s.t, s.ws.StartZerobus("127.0.0.1:0"))
	s.zerobus(append([]string{"transport: " + transport, "endpoint: " + s.ws.ZerobusURL(), fmt.Sprintf("workspace_id: %q", emulator.DefaultWorkspaceID)}, more...)...)
}

// zerobus adds lines to the configuration's section of that name.
func (s *stage) zerobus(lines ...string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	must(s.t, err)
	added := "zerobus:\n  " + strings.Join(lines, "\n  ") + "\n"
	if strings.Contains(added, "  transport: ") {
		text = bytes.Replace(text, []byte("  transport: workspace\n"), nil, 1)
	}
	changed := strings.Replace(string(text), "zerobus:\n", added, 1)
	must(s.t, os.WriteFile(s.config, []byte(changed), 0o600))
}

// eachNative runs body with both transports of the Zerobus endpoint, on both
// brokers, in parallel with the other tests.
func eachNative(t *testing.T, set setting, body func(t *testing.T, s *stage, transport string)) {
	t.Helper()
	t.Parallel()
	for _, transport := range []string{"grpc", "rest"} {
		t.Run(transport, func(t *testing.T) {
			eachStage(t, set, func(t *testing.T, s *stage) {
				s.native(transport)
				body(t, s, transport)
			})
		})
	}
}

// page is an event of the type that has a title.
func page(id string) []byte {
	return fmt.Appendf(nil, `{"type":"page","message_id":%q,"user_id":"u-1","timestamp":"2026-03-04T09:00:00.000Z",`+
		`"context":{"locale":"en-GB","page":{"url":"https://shop.example/","title":"Title of %s"}}}`, id, id)
}

// pages appends n events of the type page, spread evenly.
func (p *producer) pages(n int) {
	p.t.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		partition := int32(i % len(p.next))
		records[i] = &kgo.Record{Topic: p.topic, Partition: partition, Value: page(eventID(partition, p.next[partition]))}
		p.next[partition]++
	}
	ctx, cancel := within()
	defer cancel()
	if err := p.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		p.t.Fatalf("producing %d events: %v", n, err)
	}
}

// file writes text to a file of the test's own.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// arrivedBy counts the rows in the table by the transport they came with.
func (w *workspace) arrivedBy() map[string]int {
	by := map[string]int{}
	for _, row := range w.table().Rows(nil) {
		by[row.Transport]++
	}
	return by
}
