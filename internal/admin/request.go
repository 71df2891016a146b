package admin

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxBody   = 1 << 20 // bytes
	maxDepth  = 32      // of values within values
	maxReason = 500     // characters
	// Items on a page.
	defaultLimit, maxLimit = 50, 100
)

// A param is a parameter of the query.
type param struct {
	name, description string
	kind              string // boolean, integer, or the type of a string: cursor, text, time, list
	def               string // default of a boolean or an integer; empty: none
}

// limits of texts by kind, in characters.
var maxText = map[string]int{"cursor": 1000, "text": maxReason, "time": 40, "list": 1000}

// check returns what is wrong with a value.
func (p *param) check(value string) string {
	switch p.kind {
	case "boolean":
		if value != "true" && value != "false" {
			return "is true or false"
		}
	case "integer":
		if n, err := strconv.Atoi(value); err != nil || n < 1 || n > maxLimit {
			return fmt.Sprintf("is a number from 1 to %d", maxLimit)
		}
	case "time":
		if _, err := time.Parse(time.RFC3339, value); err != nil {
			return "is a time such as 2026-01-31T12:00:00Z"
		}
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return "has no control characters"
	}
	if most := maxText[p.kind]; most > 0 && len([]rune(value)) > most {
		return fmt.Sprintf("has at most %d characters", most)
	}
	return ""
}

// readParams reads the query. What is unknown is refused, so that a spelling mistake in
// dry_run changes nothing.
func (c *call) readParams() error {
	wrong := func(name, why string) error {
		return &failure{Status: http.StatusBadRequest, Code: "INVALID_PARAMETER", Message: "parameter " + strconv.Quote(name) + " " + why, Remedy: "see " + Prefix + "/openapi.json"}
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return failed(http.StatusBadRequest, "INVALID_PARAMETER", "the query of the address is not encoded correctly; encode it as a form")
	}
	c.params = map[string]string{}
	for _, p := range c.route.params {
		values, given := query[p.name]
		delete(query, p.name)
		switch {
		case !given:
			c.params[p.name] = p.def
		case len(values) > 1:
			return wrong(p.name, "is given more than once")
		default:
			if why := p.check(values[0]); why != "" {
				return wrong(p.name, why)
			}
			c.params[p.name] = values[0]
		}
	}
	for name := range query {
		return wrong(name, "is not one of this call")
	}
	c.dryRun = c.params["dry_run"] == "true"
	return nil
}

// limit is the largest number of items of a page.
func (c *call) limit() int {
	n, _ := strconv.Atoi(c.params["limit"]) // was checked
	return n
}

// cursor is the decoded cursor; empty: the first page.
func (c *call) cursor() (string, error) {
	text, err := hex.DecodeString(c.params["cursor"])
	if err != nil {
		return "", failed(http.StatusBadRequest, "INVALID_PARAMETER", `parameter "cursor" is not one of an answer; send next_cursor of the page before`)
	}
	return string(text), nil
}

// page is one page of a list.
type page[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor"`
	HasMore    bool    `json:"has_more"`
}

// paginate returns the first limit of items; more follow those. key is the cursor of an item.
func paginate[T any](items []T, limit int, key func(*T) string) page[T] {
	p := page[T]{Data: items}
	if p.HasMore = len(items) > limit; p.HasMore {
		p.Data = items[:limit]
		next := hex.EncodeToString([]byte(key(&p.Data[limit-1])))
		p.NextCursor = &next
	}
	if p.Data == nil {
		p.Data = []T{}
	}
	return p
}

// items are the items of a parameter that are separated by commas.
func (c *call) items(name string) []string {
	return slices.DeleteFunc(strings.Split(c.params[name], ","), func(s string) bool { return s == "" })
}

var entityTag = regexp.MustCompile(`^"([1-9][0-9]{0,17})"$`)

// revision is what If-Match requires; 0: any.
func (c *call) revision() (int64, error) {
	values := c.r.Header.Values("If-Match")
	if len(values) == 0 || len(values) == 1 && values[0] == "*" {
		return 0, nil
	}
	m := entityTag.FindStringSubmatch(strings.Join(values, ","))
	if m == nil {
		return 0, failed(http.StatusBadRequest, "INVALID_HEADER", `If-Match has no revision of an integration; send the ETag of the integration, as in If-Match: "3"`)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

// body decodes the body of the request, strictly. ok is false if there is none, which
// only an optional body may be.
func (c *call) body(into any) (ok bool, err error) {
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return false, failed(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", fmt.Sprintf("the body has more than %d bytes; send less", maxBody))
	}
	if err != nil {
		return false, failed(http.StatusBadRequest, "INVALID_BODY", "the body could not be read to its end; send it again")
	}
	if len(text) == 0 && c.route.optional {
		return false, nil
	}
	kind, options, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	charset := options["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") || c.r.Header.Get("Content-Encoding") != "" {
		return false, failed(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "the body is JSON in UTF-8; send it with Content-Type: application/json and without Content-Encoding")
	}
	if err := wellFormed(text); err != nil {
		return false, err
	}
	if jsontext.Value(text).Kind() == 'n' {
		return false, invalid("body", "must be an object, and is null", "send an object")
	}
	return true, describe(json.Unmarshal(text, into, json.RejectUnknownMembers(true), json.WithUnmarshalers(listed)))
}

// listed refuses null in lists, where it is not "not given". Values that any JSON may take
// keep theirs.
var listed = json.JoinUnmarshalers(json.UnmarshalFromFunc(refuseNull[string]), json.UnmarshalFromFunc(refuseNull[int32]))

func refuseNull[T any](d *jsontext.Decoder, _ *T) error {
	if in, _ := d.StackIndex(d.StackDepth()); in == '[' && d.PeekKind() == 'n' {
		return &json.SemanticError{JSONPointer: d.StackPointer(), JSONKind: 'n', GoType: reflect.TypeFor[T]()}
	}
	return errors.ErrUnsupported
}

// wellFormed refuses what is not one JSON value of moderate depth, with each name once.
func wellFormed(text []byte) error {
	malformed := func(at int64, why string) error {
		before := text[:min(max(at, 0), int64(len(text)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:]))) + 1
		return failed(http.StatusBadRequest, "MALFORMED_JSON", fmt.Sprintf("the body is not valid JSON: line %d, column %d: %s", line, column, why))
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for values := 0; ; {
		_, err := d.ReadToken()
		syntax, found := errors.AsType[*jsontext.SyntacticError](err)
		switch {
		case err == io.EOF && values == 1: //nolint:errorlint // the decoder returns it as it is
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF: //nolint:errorlint // as above
			return malformed(int64(len(text)), "it ends too early")
		case found && errors.Is(err, jsontext.ErrDuplicateName):
			return malformed(syntax.ByteOffset, "a name is given twice in one object")
		case found:
			return malformed(syntax.ByteOffset, strings.TrimPrefix(syntax.Err.Error(), "jsontext: "))
		case err != nil:
			return malformed(d.InputOffset(), err.Error())
		case values == 1:
			return malformed(d.InputOffset(), "more follows the value; send one value")
		case d.StackDepth() > maxDepth:
			return malformed(d.InputOffset(), fmt.Sprintf("values are nested deeper than %d", maxDepth))
		case d.StackDepth() == 0:
			values++
		}
	}
}

// describe turns the error of a body that does not fit into one about its field.
func describe(err error) error {
	wrong, ok := errors.AsType[*json.SemanticError](err)
	if err == nil || !ok {
		return err
	}
	var field []string
	for token := range wrong.JSONPointer.Tokens() {
		field = append(field, token)
	}
	name := strings.Join(field, ".")
	if errors.Is(err, json.ErrUnknownName) {
		return invalid(name, "is not a field of this call", "remove it, or correct its name; "+Prefix+"/openapi.json lists the fields")
	}
	if name == "" {
		name = "body"
	}
	return invalid(name, "must be "+kindOf(wrong.GoType)+", and is "+kinds[wrong.JSONKind], "send "+kindOf(wrong.GoType))
}

var kinds = map[jsontext.Kind]string{
	'n': "null", 'f': "a boolean", 't': "a boolean", '"': "a string", '0': "a number", '{': "an object", '}': "an object", '[': "a list", ']': "a list",
	0: "something else",
}

// kindOf names what JSON a type is decoded from.
func kindOf(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "another value"
	case t == reflect.TypeFor[time.Time]():
		return "a time such as 2026-01-31T12:00:00Z"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a whole number"
	}
}
