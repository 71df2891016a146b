package traffic

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
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
	field field
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
		body := strings.Replace(e.body, "%context%", block, 1)[1:] // the brace is left to appendEvent
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

// both spells two keys in two ways with one value, as an event has them that
// passed through an older and a newer stage.
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
		f, known := fieldNames[name]
		if !closed || !known {
			return nil, fmt.Errorf("%q: no such field", name)
		}
		segments = append(segments, segment{before, f})
		text = after
	}
}

// appendEvent appends one event. extra goes in right after the opening brace;
// it is empty or ends with a comma.
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
		if s.field != nothing {
			dst = f.append(dst, s.field)
		}
	}
	return dst
}
