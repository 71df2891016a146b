package e2e_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An input is one record and its outcome: rows, a dead letter with
// a code, or nothing at all.
type input struct {
	name  string
	value []byte
	rows  int
	code  string            // of the dead letter; empty: none
	sets  map[string]string // columns of the first row, "" for NULL
}

// with is a plain event with members in front of its own.
func with(members string) []byte {
	return []byte(`{` + members + `"type":"track","event":"Order Completed","anonymous_id":"a-9","timestamp":"2026-03-04T09:00:00Z"}`)
}

const micros = "1772614800000000" // 2026-03-04T09:00:00Z

func inputs() []input {
	row := func(name, value string, sets ...string) input {
		in := input{name: name, value: []byte(value), rows: 1, sets: map[string]string{}}
		for i := 0; i < len(sets); i += 2 {
			in.sets[sets[i]] = sets[i+1]
		}
		return in
	}
	reject := func(name, code, value string) input { return input{name: name, code: code, value: []byte(value)} }
	stamp := func(name, text string, want string) input {
		return row("timestamp "+name, `{"type":"track","event":"e","message_id":"m","timestamp":`+text+`}`, "event_timestamp", want)
	}
	huge := strings.Repeat("x", 9<<20)
	return []input{
		reject("empty value", "empty", ""),
		reject("white space", "empty", " \n\t"),
		{name: "tombstone"},
		row("byte order mark", "\ufeff"+string(with("")), "event_name", "order_completed"),
		reject("not json", "not_json", "INFO order placed"),
		reject("a string", "not_object", `"order placed"`),
		reject("a number", "not_object", `42`),
		reject("truncated", "not_json", `{"type":"track","event":"Order Co`),
		reject("trailing garbage", "not_json", string(with(""))+"}"),
		reject("1,500 deep", "too_deep", string(with(`"properties":{"tree":`+strings.Repeat("[", 1500)+strings.Repeat("]", 1500)+`},`))),
		row("900 deep", string(with(`"properties":{"tree":`+strings.Repeat("[", 900)+strings.Repeat("]", 900)+`},`))),
		reject("duplicate key that is mapped", "duplicate_key", string(with(`"type":"page",`))),
		row("duplicate key that is not", string(with(`"properties":{"a":1,"a":2},`))),
		reject("invalid UTF-8", "invalid_utf8", string(with("\"properties\":{\"note\":\"caf\xe9\"},"))),
		reject("lone surrogate", "invalid_utf8", string(with(`"properties":{"note":"cut \ud83d"},`))),
		row("1e400", string(with(`"user_id":1e400,`)), "user_id", "1e400"),
		row("2^63", string(with(`"user_id":9223372036854775808,`)), "user_id", "9223372036854775808"),
		row("20 digits", string(with(`"user_id":12345678901234567890,`)), "user_id", "12345678901234567890"),
		reject("NaN", "not_json", string(with(`"properties":{"score":NaN},`))),
		row("9 MiB", string(with(`"properties":{"blob":"`+huge+`"},`)), "event_name", "order_completed"),
		row("a row over max_bytes", string(with(`"context":{"user_agent":"`+huge[:5<<20]+`"},`)), "user_agent", huge[:5<<20]),
		reject("a row over the largest request", "too_large", string(with(`"context":{"user_agent":"`+huge+huge[:2<<20]+`"},`))),
		row("camelCase", `{"type":"track","event":"e","messageId":"m-1","userId":"u","anonymousId":"a","timestamp":"2026-03-04T09:00:00Z","context":{"userAgent":"UA"},"sourceId":"s"}`,
			"message_id", "m-1", "user_id", "u", "anonymous_id", "a", "user_agent", "UA", "source_id", "s"),
		row("both spellings", string(with(`"userId":"camel","user_id":"snake",`)), "user_id", "snake"),
		row("wrapped", `{"event":{"type":"page","message_id":"m-2","user_id":"u"}}`, "event_type", "page", "message_id", "m-2"),
		row("wrapped in payload", `{"payload":{"type":"identify","message_id":"m-3"}}`, "event_type", "identify", "message_id", "m-3"),
		{name: "array", value: fmt.Appendf(nil, "[%s,%s]", with(""), with("")), rows: 2},
		{name: "batch", value: fmt.Appendf(nil, `{"batch":[%s,%s,%s]}`, with(""), with(""), with("")), rows: 3},
		{name: "batch with one bad", value: fmt.Appendf(nil, `{"batch":[%s,7,%s]}`, with(""), with("")), rows: 2, code: "not_object"},
		reject("empty array", "empty", "[]"),
		row("already a row", `{"event_name":"order_completed","event_type":"track","message_id":"m-4","event_timestamp":`+micros+`,"page_url":"https://shop.example/"}`,
			"event_name", "order_completed", "message_id", "m-4", "event_timestamp", micros, "page_url", "https://shop.example/"),
		stamp("in UTC", `"2026-03-04T09:00:00Z"`, micros),
		stamp("with an offset", `"2026-03-04T11:00:00.000+02:00"`, micros),
		stamp("in nanoseconds", `"2026-03-04T09:00:00.000000001Z"`, micros),
		stamp("with a space", `"2026-03-04 09:00:00"`, micros),
		stamp("in seconds", `1772614800`, micros),
		stamp("in milliseconds", `1772614800000`, micros),
		stamp("in microseconds", `1772614800000000`, micros),
		stamp("in a string", `"1772614800000"`, micros),
		stamp("null", `null`, ""),
		row("no timestamp but sent_at", `{"type":"track","event":"e","message_id":"m","sent_at":"2026-03-04T09:00:00Z"}`, "event_timestamp", micros),
		reject("timestamp that is none", "bad_timestamp", `{"type":"track","event":"e","message_id":"m","timestamp":"soon"}`),
		row("no message_id", string(with(""))),
		row("numeric user_id", string(with(`"user_id":42,`)), "user_id", "42"),
		row("object for a string", string(with(`"user_id":{"id": 42},`)), "user_id", `{"id":42}`),
		row("explicit null", string(with(`"user_id":null,`)), "user_id", ""),
		row("unknown type", `{"type":"teleport","message_id":"m"}`, "event_type", "teleport", "event_name", ""),
		row("unknown event", `{"type":"track","event":"Kettle Boiled Over","message_id":"m"}`, "event_name", "kettle_boiled_over"),
	}
}

func TestEveryInputFindsItsEnd(t *testing.T) {
	const neighbours = 40
	eachStage(t, setting{topic: map[string]string{"max.message.bytes": "16777216"}}, func(t *testing.T, s *stage) {
		all := inputs()
		cl := client(t, s.broker, kgo.ProducerBatchMaxBytes(16<<20), kgo.DefaultProduceTopic(s.topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
		ctx, cancel := within()
		defer cancel()
		want := 0
		inputOf := map[string]int{} // by offset
		for i, in := range all {
			record := &kgo.Record{Key: []byte("key"), Value: in.value, Headers: []kgo.RecordHeader{{Key: "input", Value: []byte(in.name)}}}
			good := &kgo.Record{Value: event(fmt.Sprintf("good-%d", i), 0)}
			if err := cl.ProduceSync(ctx, record, good).FirstErr(); err != nil {
				t.Fatalf("%s: %v", in.name, err)
			}
			inputOf[fmt.Sprint(record.Offset)] = i
			want += in.rows + 1
		}
		for i := range neighbours {
			if err := cl.ProduceSync(ctx, &kgo.Record{Value: event(fmt.Sprintf("late-%d", i), 0)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		want += neighbours

		m := s.beginReady()
		end := length(t, s.adm, s.topic)
		eventually(t, patience, "all inputs committed", func() bool {
			m.alive()
			return sum(committed(t, s.adm, s.group, s.topic)) == end
		}, func() string { return fmt.Sprint(m.notReady()) })
		if got := s.ws.table().Count(); got != want {
			t.Errorf("got %d rows, want %d", got, want)
		}

		dead := map[string]*kgo.Record{}
		for _, r := range deadLetters(t, s.broker, s.adm, s.topic+"-dlq") {
			in := all[inputOf[header(r, "bridge-source-offset")]]
			dead[in.name] = r
			if got := header(r, "bridge-error-code"); got != in.code {
				t.Errorf("%s: got code %q, want %q", in.name, got, in.code)
			}
			if reason := header(r, "bridge-error-reason"); len(reason) < 10 {
				t.Errorf("%s: got reason %q, want one that can be read", in.name, reason)
			}
			if !bytes.Equal(r.Value, in.value) || string(r.Key) != "key" || header(r, "input") != in.name {
				t.Errorf("%s: the dead letter is not the original: %d bytes for %d, key %q, headers %v", in.name, len(r.Value), len(in.value), r.Key, r.Headers)
			}
		}
		for _, in := range all {
			if (dead[in.name] != nil) != (in.code != "") {
				t.Errorf("%s: got dead letter %v, want %q", in.name, dead[in.name] != nil, in.code)
			}
		}
		s.columns(t, all)
		if got := m.snapshot().Totals; got.EventsFiltered != 1 {
			t.Errorf("got %d events filtered, want the tombstone", got.EventsFiltered)
		}
		for _, path := range []string{"/metrics", "/status"} {
			m.get(path, "")
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

// columns compares what rows carry with what was sent. Rows stand in the order
// of the topic: those of an input, then its good neighbour.
func (s *stage) columns(t *testing.T, all []input) {
	t.Helper()
	rows := s.ws.table().Rows(nil)
	ids := map[string]bool{}
	at := 0
	for i, in := range all {
		for n := range in.rows {
			if at >= len(rows) {
				t.Fatalf("%s: the rows end", in.name)
			}
			row := rows[at]
			at++
			id, ok := row.Value("message_id")
			if !ok || strings.HasPrefix(id, "good-") {
				t.Errorf("%s: got message id %q, want its own or a derived one", in.name, id)
			}
			if !strings.HasPrefix(id, "m") && ids[id] {
				t.Errorf("%s: got derived message id %q twice", in.name, id)
			}
			ids[id] = true
			for column, want := range in.sets {
				if got, _ := row.Value(column); n == 0 && got != want {
					t.Errorf("%s: got %s %.80q, want %.80q", in.name, column, got, want)
				}
			}
		}
		if id, _ := rows[at].Value("message_id"); id != fmt.Sprintf("good-%d", i) {
			t.Fatalf("%s: got row %q behind it, want its neighbour good-%d", in.name, id, i)
		}
		at++
	}
}
