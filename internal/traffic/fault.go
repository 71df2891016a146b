package traffic

import "strings"

// Fault is one way for an event to be malformed.
type Fault struct {
	Kind string // what was done to the event
	Code string // under which name the default mapping rejects it
}

// Faults returns the kinds of malformed events in the order in which they take
// turns.
func Faults() []Fault {
	all := make([]Fault, len(faults))
	for i := range faults {
		all[i] = faults[i].Fault
	}
	return all
}

// fault is a Fault and how it is made: by text that goes in front of the first
// key, or by a function of the finished event.
type fault struct {
	Fault
	extra   string
	badTime bool
	alter   func(value []byte, f *fields, r *source) []byte
}

var faults = []fault{
	{Fault: Fault{"truncated", "not_json"}, alter: func(value []byte, _ *fields, r *source) []byte {
		return value[:1+r.below(len(value)-1)] // no proper prefix of an object is JSON
	}},
	{Fault: Fault{"not_json", "not_json"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(value[:0], "INFO checkout: order placed, message "...), f.id[:]...)
	}},
	{Fault: Fault{"not_object", "not_object"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(append(value[:0], '"'), f.id[:]...), '"')
	}},
	{Fault: Fault{"empty", "empty"}, alter: func(value []byte, _ *fields, _ *source) []byte { return value[:0] }},
	// A schema registry's framing: a zero byte and the schema's number.
	{Fault: Fault{"binary", "not_json"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(value[:0], 0, 0, 0, 0, 7, 2*idLen), f.id[:]...)
	}},
	{Fault: Fault{"trailing_garbage", "not_json"}, alter: func(value []byte, _ *fields, _ *source) []byte { return append(value, '}') }},
	{Fault: Fault{"bad_number", "not_json"}, extra: `"score":NaN,`},
	{Fault: Fault{"bad_escape", "not_json"}, extra: `"folder":"C:\users",`},
	{Fault: Fault{"control_character", "not_json"}, extra: "\"note\":\"two\nlines\","},
	{Fault: Fault{"invalid_utf8", "invalid_utf8"}, extra: "\"note\":\"caf\xe9\","}, // Latin-1
	{Fault: Fault{"lone_surrogate", "invalid_utf8"}, extra: `"note":"cut \ud83d",`},
	{Fault: Fault{"duplicate_key", "duplicate_key"}, extra: `"type":"track",`},
	{Fault: Fault{"too_deep", "too_deep"}, extra: `"tree":` + strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + `,`},
	{Fault: Fault{"bad_timestamp", "bad_timestamp"}, badTime: true},
}

func (p *program) appendFault(dst []byte, how *fault, f *fields, r *source) []byte {
	f.badTime = how.badTime
	dst = p.appendEvent(dst, how.extra, f, r)
	if how.alter != nil {
		dst = how.alter(dst, f, r)
	}
	return dst
}
