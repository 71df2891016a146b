package operations

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/plaintext"
)

// hostile is a dead letter whose every header and byte is meant to attack a terminal.
func hostile(value []byte) *deadletter.Record {
	const esc = "\x1b[2J\r\n\u202e"
	var headers []kgo.RecordHeader
	for _, key := range []string{"h" + esc, consumer.HeaderCode, consumer.HeaderColumn, consumer.HeaderReason, consumer.HeaderTopic, consumer.HeaderVersion, consumer.HeaderEvents, consumer.HeaderFailedAt} {
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(strings.Repeat(esc, 2000))})
	}
	return deadletter.Parse(&kgo.Record{Topic: "t-dlq", Headers: headers, Key: []byte{0, 0xff, 0x1b}, Value: value})
}

func newList() *DeadLetterList {
	return &DeadLetterList{DeadLetters: DeadLetters{Topics: []string{"t-dlq"}}, List: deadletter.NewList(10, 1)}
}

func textOf(write func(*strings.Builder)) string {
	var b strings.Builder
	write(&b)
	return b.String()
}

func harmless(t *testing.T, what, text string) {
	t.Helper()
	if strings.ContainsAny(text, "\x1b\r\u202e") {
		t.Errorf("%s: got a control character in %.200q", what, text)
	}
}

func TestHostileDeadLettersAreEscaped(t *testing.T) {
	for name, value := range map[string][]byte{
		"null": nil, "empty": {}, "binary": {0, 0xff, 0x1b, '['}, "text with escapes": []byte("\x1b[2Jhello"),
		"JSON with a raw override": []byte("{\"a\":\"\u202e\"}"), "huge": []byte(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`),
		"huge binary": bytes.Repeat([]byte{0xfe}, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			l := hostile(value)
			s := Show(t.Context(), l, 1, nil) // a dead letter at fault is not mapped
			text := textOf(s.WriteText)
			harmless(t, "text", text)
			if len(text) > 2*plaintext.MaxShown {
				t.Errorf("got %d bytes of text, want it cut", len(text))
			}
			if doc, err := json.Marshal(s); err != nil {
				t.Errorf("got JSON %.200q, %v", doc, err)
			}
			list := newList()
			list.Add(l)
			list.Done()
			text = textOf(list.WriteText)
			harmless(t, "list", text)
			if !strings.Contains(text, "cannot be redriven") {
				t.Errorf("got list %q, want the fault in it", text)
			}
		})
	}
}

// The list shows what it leaves out.
func TestListNamesTheRest(t *testing.T) {
	list := newList()
	for range 12 {
		list.Add(&deadletter.Record{Copies: 2, Original: &kgo.Record{Topic: "t"}})
	}
	list.Done()
	list.skipCounts = skipCounts{Older: list.List.Older}
	if text := textOf(list.WriteText); !strings.Contains(text, "12 more are older dead letters of the same events") || !strings.Contains(text, "... 2 more; --limit shows them") {
		t.Errorf("got %s, want the older copies and the rest", text)
	}
	if doc, err := json.Marshal(list); err != nil || !strings.Contains(string(doc), `"older_copies":12`) || !strings.Contains(string(doc), `"events":""`) {
		t.Errorf("got %v and %s", err, doc)
	}
}

// Of very many events a line shows the first runs and how many follow.
func TestEventsOfALineAreCut(t *testing.T) {
	var all consumer.Events
	for i := range 1000 {
		all = append(all, consumer.EventRun{First: 3 * i, Last: 3*i + 1})
	}
	if got := eventsText(all); len(got) > 200 || !strings.HasPrefix(got, "0-1,3-4,") || !strings.HasSuffix(got, ",... 1960 more") {
		t.Errorf("got %q, want it cut", got)
	}
	if got := eventsText(all[:2]); got != "0-1,3-4" {
		t.Errorf("got %q", got)
	}
}
