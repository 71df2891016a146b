package deadletter

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

func TestGroupsAreBounded(t *testing.T) {
	list := NewList(0, 1)
	for i := range 3 * maxGroups {
		list.Add(&Record{Integration: "orders", Code: strings.Repeat("c", i%60) + time.Duration(i).String(), Original: &kgo.Record{}})
	}
	list.Done()
	if got := len(list.Groups); got > maxGroups+1 {
		t.Errorf("got %d groups, want at most %d and the others", got, maxGroups)
	}
	if list.Matched != 3*maxGroups || len(list.DeadLetters) != 0 {
		t.Errorf("got %d matched, %d dead letters, want all counted and none shown", list.Matched, len(list.DeadLetters))
	}
}

func TestDeadLetterFilter(t *testing.T) {
	at := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	deadLetter := func() *Record {
		return &Record{Code: "bad", Column: "col", FailedAt: at, Group: "g", Original: &kgo.Record{Topic: "t", Partition: 3}}
	}
	for _, tc := range []struct {
		name   string
		filter Filter
		change func(*Record)
		want   bool
	}{
		{"no filter", Filter{}, nil, true},
		{"code", Filter{Codes: []string{"other", "bad"}}, nil, true},
		{"another code", Filter{Codes: []string{"other"}}, nil, false},
		{"another column", Filter{Column: "other"}, nil, false},
		{"since that time", Filter{From: at}, nil, true},
		{"since later", Filter{From: at.Add(1)}, nil, false},
		{"until that time", Filter{To: at}, nil, false},
		{"until later", Filter{To: at.Add(1)}, nil, true},
		{"since, and not known when", Filter{From: at}, func(l *Record) { l.FailedAt = time.Time{} }, false},
		{"until, and not known when", Filter{To: at}, func(l *Record) { l.FailedAt = time.Time{} }, false},
		{"partition", Filter{Partitions: []int32{1, 3}}, nil, true},
		{"another partition", Filter{Partitions: []int32{1}}, nil, false},
		{"resolved", Filter{}, func(l *Record) { l.Resolved = true }, false},
		{"resolved, and all", Filter{All: true}, func(l *Record) { l.Resolved = true }, true},
	} {
		l := deadLetter()
		if tc.change != nil {
			tc.change(l)
		}
		if got := tc.filter.Match(l); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestDeadLetterNames(t *testing.T) {
	for name, want := range map[string]bool{"0/17": true, "a-dlq/0/17": true, "": false, "17": false, "0/": false, "-1/3": false, "0/-3": false, "a/b/0/17": false, "4294967296/1": false} {
		topic, partition, offset, err := ParseName(name)
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
		if again := (&Record{Topic: topic, Partition: partition, Offset: offset}).Name(topics); again != name {
			t.Errorf("got %q of %q", again, name)
		}
	}
}

// The list shows the newest, however they come, and counts all.
func TestListIsNewestFirst(t *testing.T) {
	list := NewList(3, 1)
	for i := range 10 {
		at := time.Date(2026, 3, 4, 9, 7*i%10, 0, 0, time.UTC) // in another order than they lie there
		if i == 7 {
			at = time.Time{} // not known
		}
		list.Add(&Record{Topic: "t-dlq", Partition: int32(i % 2), Offset: int64(i), Code: "bad", FailedAt: at, Copies: 1 + i%2, Attempts: 1, Original: &kgo.Record{Topic: "t"}})
	}
	list.Done()
	var got []string
	for _, l := range list.DeadLetters {
		got = append(got, l.Name)
	}
	if strings.Join(got, " ") != "0/4 1/1 0/8" {
		t.Errorf("got dead letters %v, want the three that failed last", got)
	}
	if list.Matched != 10 || list.Older != 5 || len(list.Groups) != 1 || list.Groups[0].Count != 10 {
		t.Errorf("got %d matched, %d older copies and groups %+v, want 10 in one group and 5", list.Matched, list.Older, list.Groups)
	}
}

// A dead letter belongs to the integration with its group. Where that is not named,
// the integration decides, and the topic where neither is.
func TestDeadLetterBelongsToOneIntegration(t *testing.T) {
	integration := func(name, group, topic string) consumer.Config {
		return consumer.Config{Kafka: consumer.Kafka{Topics: []string{"t"}, Group: group}, Rejects: consumer.Rejects{Integration: name, Topic: topic}}
	}
	for _, tc := range []struct {
		name, group, header string
		topic, source       string
		shared              string // rejects.topic of all
		want                string
	}{
		{name: "by its group", group: "b-orders", header: "orders", want: "orders"},
		{name: "of a group that another took over", group: "b-orders", header: "default", want: "orders"},
		{name: "of a bridge that named no integration", group: "b-orders", want: "orders"},
		{name: "of another deployment", group: "other", header: "orders", want: ""},
		{name: "by its name alone", header: "refunds", want: "refunds"},
		{name: "of an integration that is gone", header: "gone", want: ""},
		{name: "without either, in the topic of default", topic: "t-dlq", want: "default"},
		{name: "without either, in the topic of another", topic: "t-dlq-orders", want: "orders"},
		{name: "without either, in a shared topic", topic: "all", shared: "all", want: "default"},
		{name: "from another topic", group: "b-orders", header: "orders", source: "u", want: ""},
		{name: "from an unknown topic", group: "b-orders", source: "-", want: "orders"},
	} {
		l := &Reader{cfgs: []consumer.Config{integration("", "b", tc.shared), integration("orders", "b-orders", tc.shared), integration("refunds", "b-refunds", tc.shared)}}
		r := &Record{Topic: tc.topic, Group: tc.group, Integration: tc.header, Original: &kgo.Record{Topic: "t"}}
		if tc.source != "" {
			r.Original.Topic = strings.Trim(tc.source, "-")
		}
		owned := l.own(r)
		if got := r.Integration; owned != (tc.want != "") || owned && got != tc.want {
			t.Errorf("%s: got %v of %q, want it of %q", tc.name, owned, got, tc.want)
		}
	}
	// What is no dead letter is shown where it is found, also without default.
	l := &Reader{cfgs: []consumer.Config{integration("orders", "b-orders", "all")}}
	for topic, want := range map[string]bool{"all": true, "t-dlq-orders": false} {
		if got := l.own(&Record{Topic: topic, Original: &kgo.Record{}}); got != want {
			t.Errorf("a record without headers in topic %s: got %v, want %v", topic, got, want)
		}
	}
}
