package main

import "bytes"

// maxTraceID bounds a message id that is told, in bytes.
const maxTraceID = 100

// messageID finds the message id of an event for its span, in either spelling,
// without decoding the event: a few hundred nanoseconds, where the page's way of
// finding names takes several microseconds. It looks at the members of the
// outermost object alone, so that it takes no field of the event's own making
// for the id; of an event inside another object it tells none.
func messageID(value []byte) string {
	depth, key := 0, false // key: what begins now is a key, if it is a string
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '{':
			depth++
			key = true
		case '[':
			depth++
			key = false
		case '}', ']':
			depth--
			key = false
		case ',':
			key = depth == 1
		case '"':
			end := textEnd(value, i+1)
			if end < 0 {
				return ""
			}
			name := value[i+1 : end]
			i = end
			if !key || depth != 1 {
				continue
			}
			key = false
			if string(name) == "message_id" || string(name) == "messageId" {
				return idAfter(value[end+1:])
			}
		}
	}
	return ""
}

// textEnd returns where the closing quote of a string stands, or -1.
func textEnd(value []byte, from int) int {
	for at := from; ; {
		n := bytes.IndexByte(value[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		slashes := 0
		for at-slashes > from && value[at-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return at
		}
		at++
	}
}

// idAfter returns the text a member has, where it looks like an id.
func idAfter(rest []byte) string {
	rest = bytes.TrimLeft(rest, " \t\r\n")
	if len(rest) == 0 || rest[0] != ':' {
		return ""
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	if len(rest) == 0 || rest[0] != '"' {
		return ""
	}
	rest = rest[1:]
	for i, c := range rest[:min(len(rest), maxTraceID+1)] {
		switch {
		case c == '"':
			return string(rest[:i])
		case c <= ' ' || c > '~' || c == '\\':
			return ""
		}
	}
	return ""
}
