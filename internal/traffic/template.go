package traffic

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed templates.txt
var templates string

// program is the compiled templates. It is immutable and shared.
type program struct {
	pick   []int // template by weight
	events []template
}

// template is one event in its three spellings.
type template [3][]segment

// segment is text to copy and the field that follows it.
type segment struct {
	text  string
	write func(f *fields, dst []byte) []byte // nil for no field
}

var compiled = sync.OnceValue(func() *program {
	p, err := compile(templates)
	if err != nil {
		panic("traffic: templates.txt: " + err.Error()) // embedded text; a test compiles it
	}
	return p
})

func compile(text string) (*program, error) {
	type source struct {
		weight        int
		context, body string
	}
	var events []source
	contexts := map[string]string{}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		head, body, _ := strings.Cut(paragraph, "\n")
		if strings.HasPrefix(head, "#") {
			continue
		}
		body = joinLines(body)
		kind, name, _ := strings.Cut(head, " ")
		if kind == "context" {
			contexts[name] = body
			continue
		}
		weight, err := strconv.Atoi(kind)
		if err != nil || weight < 1 || !strings.HasPrefix(body, "{") {
			return nil, fmt.Errorf("%q: want a weight and a context above a JSON object", head)
		}
		events = append(events, source{weight, name, body})
	}
	p := &program{}
	for i, e := range events {
		block, ok := contexts[e.context]
		if !ok {
			return nil, fmt.Errorf("%q: no such context", e.context)
		}
		body := strings.Replace(e.body, "%context%", block, 1)[1:] // appendEvent writes the brace
		var t template
		for spelling, text := range []string{body, camel.Replace(body), both.Replace(body)} {
			segments, err := split(text)
			if err != nil {
				return nil, err
			}
			t[spelling] = segments
		}
		p.events = append(p.events, t)
		for range e.weight {
			p.pick = append(p.pick, i)
		}
	}
	return p, nil
}

func joinLines(body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		b.WriteString(strings.TrimSpace(line))
	}
	return b.String()
}

// camel is the spelling of Signal's collectors. No key inside properties and
// traits of the templates is among these.
var camel = strings.NewReplacer(
	`"message_id":`, `"messageId":`,
	`"user_id":`, `"userId":`,
	`"anonymous_id":`, `"anonymousId":`,
	`"group_id":`, `"groupId":`,
	`"previous_id":`, `"previousId":`,
	`"source_id":`, `"sourceId":`,
	`"integration_id":`, `"integrationId":`,
	`"sent_at":`, `"sentAt":`,
	`"received_at":`, `"receivedAt":`,
	`"user_agent":`, `"userAgent":`,
	`"vendor_ids":`, `"vendorIds":`,
	`"is_new":`, `"isNew":`,
)

// both writes two keys in both spellings with one value, like an event that an
// older and a newer stage have processed.
var both = strings.NewReplacer(
	`"message_id":"%id%"`, `"messageId":"%id%","message_id":"%id%"`,
	`"user_agent":`, `"userAgent":"","user_agent":`,
)

func split(text string) ([]segment, error) {
	var segments []segment
	for {
		before, rest, found := strings.Cut(text, "%")
		if !found {
			return append(segments, segment{text: text}), nil
		}
		name, after, closed := strings.Cut(rest, "%")
		write, known := fieldWriters[name]
		if !closed || !known {
			return nil, fmt.Errorf("%q: no such field", name)
		}
		segments = append(segments, segment{before, write})
		text = after
	}
}

// appendEvent appends one event, with extra after the opening brace; extra is
// empty or ends with a comma.
func (p *program) appendEvent(dst []byte, extra string, f *fields, r *source) []byte {
	t := &p.events[p.pick[r.below(len(p.pick))]]
	spelling := 0
	switch n := r.below(16); {
	case n == 0:
		spelling = 2
	case n <= 7:
		spelling = 1
	}
	dst = append(dst, '{')
	dst = append(dst, extra...)
	for i := range t[spelling] {
		s := &t[spelling][i]
		dst = append(dst, s.text...)
		if s.write != nil {
			dst = s.write(f, dst)
		}
	}
	return dst
}

// fieldWriters append the values that differ between events, by their names in
// the templates.
var fieldWriters = map[string]func(f *fields, dst []byte) []byte{
	"id": func(f *fields, dst []byte) []byte { return append(dst, f.id[:]...) },
	"user": func(f *fields, dst []byte) []byte { // a JSON value: string or null
		if f.person>>8%3 == 0 { // a third has not logged in
			return append(dst, "null"...)
		}
		return append(strconv.AppendUint(append(dst, `"cust-`...), 10_000+f.visitor, 10), '"')
	},
	"anon": (*fields).appendAnonymousID,
	"time": (*fields).appendTime, // a JSON value: string or number
	"sent": func(f *fields, dst []byte) []byte { return f.appendRFC3339(dst, f.millis+40) },
	"received": func(f *fields, dst []byte) []byte {
		return f.appendRFC3339(dst, f.millis+40+int64(f.luck>>16&127))
	},
	"ip": func(f *fields, dst []byte) []byte {
		if f.person>>16%4 == 0 {
			return strconv.AppendUint(append(dst, "2001:db8::"...), f.visitor&0x0fff, 16)
		}
		return strconv.AppendUint(append(dst, "198.51.100."...), f.person>>24&255, 10)
	},
	"agent":    func(f *fields, dst []byte) []byte { return append(dst, agents[f.person>>32%uint64(len(agents))]...) },
	"locale":   func(f *fields, dst []byte) []byte { return append(dst, f.place().locale...) },
	"timezone": func(f *fields, dst []byte) []byte { return append(dst, f.place().timezone...) },
	"city":     func(f *fields, dst []byte) []byte { return append(dst, f.place().city...) },
	"currency": func(f *fields, dst []byte) []byte { return append(dst, f.place().currency...) },
	"url": func(f *fields, dst []byte) []byte {
		return append(append(append(dst, "https://www.teashop.example/p/"...), f.product.sku...), "?ref=list&utm_campaign=spring"...)
	},
	"referrer": func(f *fields, dst []byte) []byte { return append(dst, referrers[f.luck%uint64(len(referrers))]...) },
	"title":    func(f *fields, dst []byte) []byte { return append(dst, f.product.title...) },
	"category": func(f *fields, dst []byte) []byte { return append(dst, f.product.category...) },
	"sku":      func(f *fields, dst []byte) []byte { return append(dst, f.product.sku...) },
	"price": func(f *fields, dst []byte) []byte {
		return append(strconv.AppendUint(dst, 1+f.luck>>8&63, 10), '.', '0'+byte(f.luck>>14&7), '5')
	},
	"quantity": func(f *fields, dst []byte) []byte { return append(dst, '1'+byte(f.luck>>20&7)) },
	"count":    func(f *fields, dst []byte) []byte { return strconv.AppendUint(dst, f.luck>>24&0xfffff, 10) },
	"query":    func(f *fields, dst []byte) []byte { return append(dst, queries[f.luck>>4%uint64(len(queries))]...) },
	"campaign": func(f *fields, dst []byte) []byte {
		return append(dst, campaigns[f.person>>40%uint64(len(campaigns))]...)
	},
	"consent": func(f *fields, dst []byte) []byte { return strconv.AppendBool(dst, f.person>>44%8 != 0) },
	"session": func(f *fields, dst []byte) []byte {
		return strconv.AppendInt(dst, f.millis-int64(f.person>>48&0xffff), 10)
	},
}

// Values as JSON text. Some contain escapes and text beyond ASCII, as real events
// do.
var (
	agents = [...]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:135.0) Gecko/20100101 Firefox/135.0",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Safari/605.1.15",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Mobile/15E148 Safari/604.1",
	}
	places = [...]place{
		{"en-GB", "Europe/London", "London", "GBP"}, {"de-DE", "Europe/Berlin", "K\u00f6ln", "EUR"}, {"fr-FR", "Europe/Paris", "Saint-\\u00c9tienne", "EUR"},
		{"en-US", "America/Chicago", "Chicago", "USD"}, {"ja-JP", "Asia/Tokyo", "\u6771\u4eac", "JPY"}, {"pt-BR", "America/Sao_Paulo", "S\u00e3o Paulo", "BRL"},
	}
	products = [...]product{
		{"MUG-1", "Mug, white", "mugs"}, {"OOL-250", "Oolong 250 g", "tea"}, {"POT-07", "Teapot \\\"Kyoto\\\"", "pots"}, {"DAR-100", "Darjeeling First Flush", "tea"},
		{"CAF-01", "Caf\u00e9 blend", "coffee"}, {"FIL-20", "Paper filters 1\\/20", "supplies"}, {"SEN-50", "Sencha \u714e\u8336", "tea"}, {"SET-3", "Gift set \\ud83c\\udf81", "gifts"},
	}
	queries   = [...]string{"oolong", "green tea", "mug 0.3l", "caf\u00e9", "th\\u00e9 vert", "gift <20", "\u62b9\u8336"}
	referrers = [...]string{"", "https://search.example/?q=tea", "https://news.example/2026/03/best-teapots", "https://www.teashop.example/"}
	campaigns = [...]string{"newsletter", "search", "social", "partner"}
)

type place struct{ locale, timezone, city, currency string }

type product struct{ sku, title, category string }

// visitors is how many people are in the shop; their events share a Kafka key.
const visitors = 20_000

// fields are the values of one event. A visitor keeps place and browser.
type fields struct {
	id      [idLen]byte
	badTime bool
	millis  int64  // event time since the epoch
	visitor uint64 // 0 to visitors-1
	person  uint64 // visitor, mixed
	product *product
	luck    uint64

	second int64 // the one that date spells
	date   [len("2006-01-02T15:04:05")]byte
}

func (f *fields) begin(r *source, millis int64) {
	f.badTime = false
	f.millis = millis
	f.visitor = uint64(r.below(visitors))
	f.person = mix(f.visitor)
	f.product = &products[r.below(len(products))]
	f.luck = r.next()
}

func (f *fields) appendAnonymousID(dst []byte) []byte {
	dst = append(dst, "anon_"...)
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[f.person>>shift&15])
	}
	return dst
}

func (f *fields) place() *place { return &places[f.person%uint64(len(places))] }

// appendTime appends the event's time in one of the forms Signal's sources
// write, most often RFC 3339 with milliseconds.
func (f *fields) appendTime(dst []byte) []byte {
	if f.badTime {
		return append(dst, `"not a time"`...)
	}
	switch f.luck >> 50 & 15 {
	case 0: // the pixel's
		return strconv.AppendInt(dst, f.millis, 10)
	case 1: // a phone's, two hours to the east
		dst = f.appendRFC3339(append(dst, '"'), f.millis+2*3600*1000)
		return append(dst[:len(dst)-1], `+02:00"`...)
	case 2: // a server's, to the microsecond
		dst = f.appendRFC3339(append(dst, '"'), f.millis)
		return append(dst[:len(dst)-1], `250Z"`...)
	default:
		return append(f.appendRFC3339(append(dst, '"'), f.millis), '"')
	}
}

// appendRFC3339 appends a time in UTC with milliseconds. Neighbouring events
// share their second, so its spelling is kept.
func (f *fields) appendRFC3339(dst []byte, millis int64) []byte {
	if second := millis / 1000; second != f.second {
		f.second = second
		time.Unix(second, 0).UTC().AppendFormat(f.date[:0], "2006-01-02T15:04:05")
	}
	dst = append(dst, f.date[:]...)
	ms := millis % 1000
	return append(dst, '.', '0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10), 'Z')
}
