package databricks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Answer is the content of an error body. Databricks REST errors look like
// {"error_code":"…","message":"…","details":[…]}; error_code may be a number, and a
// body from a proxy may be anything.
type Answer struct{ Code, Message, Column string }

// DecodeAnswer leaves empty what it cannot understand.
func DecodeAnswer(body []byte) Answer {
	var doc struct {
		Code    json.RawMessage `json:"error_code"`
		Message string          `json:"message"`
		Column  string          `json:"column"`
		Details json.RawMessage `json:"details"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return Answer{}
	}
	// A field of another type leaves its neighbours readable.
	if err := json.Unmarshal(body, &doc); err != nil && !wrongType(err) {
		return Answer{}
	}
	a := Answer{Message: doc.Message, Column: doc.Column}
	if json.Unmarshal(doc.Code, &a.Code) != nil {
		a.Code = string(doc.Code)
	}
	if a.Code = Clean(a.Code, 100); a.Code == "null" {
		a.Code = ""
	}
	var details []struct {
		Column   string            `json:"column"`
		Metadata map[string]string `json:"metadata"`
	}
	if json.Unmarshal(doc.Details, &details) == nil {
		for _, d := range details {
			a.Column = cmp.Or(a.Column, d.Column, d.Metadata["column"])
		}
	}
	a.Column = Clean(cmp.Or(a.Column, ColumnIn(doc.Message)), 255)
	return a
}

// ColumnIn finds a column's name in a message of the service, for readers of dead
// letters; nothing is decided by it.
func ColumnIn(message string) string {
	if m := quotedColumn.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}

var quotedColumn = regexp.MustCompile("(?i)\\b(?:column|field(?: name)?) ['\"`]([^'\"`]{1,255})['\"`]")

// ErrorCode returns code if it looks like one; other texts are kept out of logs and
// labels.
func ErrorCode(code string, secrets []string) string {
	code = Clean(code, 100, secrets...)
	if strings.ContainsFunc(code, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return ""
	}
	return code
}

// Clean returns text on one line, at most limit bytes, each secret replaced.
func Clean(text string, limit int, secrets ...string) string {
	secrets = slices.Clone(secrets) // longest first: one may be part of another
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	redact := func() {
		for _, s := range secrets {
			if s != "" {
				text = strings.ReplaceAll(text, s, "[redacted]")
			}
		}
	}
	redact()
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, text)
	redact() // what was dropped may have stood inside one
	text = strings.TrimSpace(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

// RequestID returns the service's id of the request.
func RequestID(h http.Header, secrets []string) string {
	return Clean(h.Get("X-Request-Id"), 100, secrets...)
}

// RetryAfterMax bounds how long an answer may have the client wait: a longer wish is a fault
// of the service or a proxy.
const RetryAfterMax = 10 * time.Minute

// RetryAfter reads the Retry-After header: seconds or an HTTP date (RFC 9110, section
// 10.2.3). A missing, past or malformed one is 0.
func RetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, RetryAfterMax)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), RetryAfterMax)
}

func wrongType(err error) bool {
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok
}
