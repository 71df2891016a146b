package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"

	"github.com/datafly/bridge/internal/terminal"
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

func newList() *deadLetterList {
	return &deadLetterList{deadLetterReader: deadLetterReader{Topics: []string{"t-dlq"}}, groups: deadLetterGroups{}}
}

// textOf is the text of a report without colours.
func textOf(write func(*strings.Builder, terminal.Style)) string {
	var b strings.Builder
	write(&b, terminal.Style{})
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
			s := newShownDeadLetter(l, 1)
			s.mapNow(t.Context(), nil) // a dead letter at fault is not mapped
			text := textOf(s.text)
			harmless(t, "text", text)
			if len(text) > 2*maxShown {
				t.Errorf("got %d bytes of text, want it cut", len(text))
			}
			if doc, err := json.Marshal(s); err != nil {
				t.Errorf("got JSON %.200q, %v", doc, err)
			}
			list := newList()
			list.add(l, 10)
			text = textOf(list.text)
			harmless(t, "list", text)
			if !strings.Contains(text, "cannot be redriven") {
				t.Errorf("got list %q, want the fault in it", text)
			}
		})
	}
}

func TestGroupsAreBounded(t *testing.T) {
	list := newList()
	for i := range 3 * maxGroups {
		list.add(&deadletter.Record{Code: strings.Repeat("c", i%60) + time.Duration(i).String(), Original: &kgo.Record{}}, 0)
	}
	if got := len(list.groups); got > maxGroups+1 {
		t.Errorf("got %d groups, want at most %d and the others", got, maxGroups)
	}
	if list.Matched != 3*maxGroups || len(list.DeadLetters) != 0 {
		t.Errorf("got %d matched, %d dead letters, want all counted and none shown", list.Matched, len(list.DeadLetters))
	}
}

func TestDeadLetterFilter(t *testing.T) {
	at := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	deadLetter := func() *deadletter.Record {
		return &deadletter.Record{Code: "bad", Column: "col", FailedAt: at, Group: "g", Original: &kgo.Record{Topic: "t", Partition: 3}}
	}
	for _, tc := range []struct {
		name   string
		filter deadLetterFlags
		change func(*deadletter.Record)
		want   bool
	}{
		{"no filter", deadLetterFlags{}, nil, true},
		{"code", deadLetterFlags{codes: []string{"other", "bad"}}, nil, true},
		{"another code", deadLetterFlags{codes: []string{"other"}}, nil, false},
		{"another column", deadLetterFlags{column: "other"}, nil, false},
		{"since that time", deadLetterFlags{from: at}, nil, true},
		{"since later", deadLetterFlags{from: at.Add(1)}, nil, false},
		{"until that time", deadLetterFlags{to: at}, nil, false},
		{"until later", deadLetterFlags{to: at.Add(1)}, nil, true},
		{"since, and not known when", deadLetterFlags{from: at}, func(l *deadletter.Record) { l.FailedAt = time.Time{} }, false},
		{"until, and not known when", deadLetterFlags{to: at}, func(l *deadletter.Record) { l.FailedAt = time.Time{} }, false},
		{"partition", deadLetterFlags{parts: []int32{1, 3}}, nil, true},
		{"another partition", deadLetterFlags{parts: []int32{1}}, nil, false},
		{"another topic", deadLetterFlags{}, func(l *deadletter.Record) { l.Original.Topic = "u" }, false},
		{"another group", deadLetterFlags{}, func(l *deadletter.Record) { l.Group = "h" }, false},
		{"no group", deadLetterFlags{}, func(l *deadletter.Record) { l.Group = "" }, true},
		{"no topic", deadLetterFlags{}, func(l *deadletter.Record) { l.Original.Topic = "" }, true},
		{"resolved", deadLetterFlags{}, func(l *deadletter.Record) { l.Resolved = true }, false},
		{"resolved, and all", deadLetterFlags{all: true}, func(l *deadletter.Record) { l.Resolved = true }, true},
	} {
		l := deadLetter()
		if tc.change != nil {
			tc.change(l)
		}
		tc.filter.topics, tc.filter.group = []string{"t"}, "g"
		if got := tc.filter.match(l); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestDeadLetterNames(t *testing.T) {
	for name, want := range map[string]bool{"0/17": true, "a-dlq/0/17": true, "": false, "17": false, "0/": false, "-1/3": false, "0/-3": false, "a/b/0/17": false, "4294967296/1": false} {
		topic, partition, offset, err := parseDeadLetterName(name)
		if got := err == nil; got != want {
			t.Errorf("%q: got error %v, want it read: %v", name, err, want)
		}
		if err != nil {
			continue
		}
		topics := 1
		if topic != "" {
			topics = 2
		}
		if again := deadLetterName(&deadletter.Record{Topic: topic, Partition: partition, Offset: offset}, topics); again != name {
			t.Errorf("got %q of %q", again, name)
		}
	}
}

// The list shows the newest, however they come, and counts all.
func TestListIsNewestFirst(t *testing.T) {
	list := newList()
	const limit = 3
	for i := range 10 {
		at := time.Date(2026, 3, 4, 9, 7*i%10, 0, 0, time.UTC) // in another order than they lie there
		if i == 7 {
			at = time.Time{} // not known
		}
		list.add(&deadletter.Record{Topic: "t-dlq", Partition: int32(i % 2), Offset: int64(i), Code: "bad", FailedAt: at, Copies: 1 + i%2, Attempts: 1, Original: &kgo.Record{Topic: "t"}}, limit)
	}
	list.newest(limit)
	var got []string
	for _, l := range list.DeadLetters {
		got = append(got, l.Name)
	}
	if strings.Join(got, " ") != "0/4 1/1 0/8" {
		t.Errorf("got dead letters %v, want the three that failed last", got)
	}
	if list.Matched != 10 || list.Groups != nil || list.groups[groupKey{code: "bad"}].Count != 10 || list.Older != 5 {
		t.Errorf("got %d matched and %d older copies, want 10 and 5", list.Matched, list.Older)
	}
	if text := textOf(list.text); !strings.Contains(text, "5 more are older dead letters of the same events") || !strings.Contains(text, "... 7 more; --limit shows them") {
		t.Errorf("got %s, want the older copies and the rest", text)
	}
	if doc, err := json.Marshal(list); err != nil || !strings.Contains(string(doc), `"older_copies":5`) || !strings.Contains(string(doc), `"events":""`) {
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
