package zerobus

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/klauspost/compress/gzip"
)

// httpTransport posts JSON over HTTP: to the workspace's own ingest path, or to the
// Zerobus endpoint.
type httpTransport struct {
	op            string
	url           string
	before, after string // what surrounds the rows in the body
	header        map[string]string
	c             *route
	counted       bool // a confirmation has to count the rows

	confirmation atomic.Value // string: how the service last confirmed, as in State.Confirmation
}

// newWorkspace returns the transport that posts to the workspace itself:
//
//	POST {workspace_url}/api/2.0/streaming-ingestion/ingest
//	{"table":"catalog.schema.table","records":[{…},{…}]}
//
// The path, the token and the statuses are those of Datafly's integration page for
// Databricks. No public page shows the body; this one is this project's reading.
func newWorkspace(c *route) *httpTransport {
	name, err := json.Marshal(c.set.table.String())
	if err != nil {
		panic(err) // a string always marshals
	}
	return &httpTransport{op: opIngest, url: c.set.ingest, before: `{"table":` + string(name) + `,"records":[`, after: "]}",
		header:  map[string]string{"Content-Type": "application/json; charset=utf-8"},
		counted: c.set.Confirm == ConfirmStrict, c: c}
}

// tableHeader routes a request or a stream at the service's edge.
const tableHeader = "x-databricks-zerobus-table-name"

// newREST returns the transport that posts to the Zerobus endpoint:
//
//	POST {endpoint}/zerobus/v1/tables/{catalog.schema.table}/insert
//	[{…},{…}]
//
// The body is an array for a single row too. Earlier releases of the service asked for the
// two headers that name table and workspace; the table's is left out if it is not ASCII.
// https://docs.databricks.com/aws/en/ingestion/zerobus-ingest
func newREST(c *route) *httpTransport {
	header := map[string]string{"Content-Type": "application/json", "unity-catalog-endpoint": c.set.base.String()}
	if name := c.set.table.String(); inASCII(name) {
		header[tableHeader] = name
	}
	return &httpTransport{op: opInsert, url: c.set.native.base.String() + "/zerobus/v1/tables/" + c.set.table.path() + "/insert", before: "[", after: "]",
		header: header, c: c}
}

const answerMax = 1 << 20 // bytes of an answer

func (p *httpTransport) close() {} // Client.Close closes the connections

func (p *httpTransport) probe(ctx context.Context, b *batch) error { return p.send(ctx, b) }

func (p *httpTransport) size(rows [][]byte) int64 {
	n := int64(len(p.before) + len(p.after) + max(len(rows)-1, 0))
	for _, row := range rows {
		n += int64(len(row))
	}
	return n
}

func (p *httpTransport) send(ctx context.Context, b *batch) error {
	token, err := p.c.tokens.get(ctx)
	if err != nil {
		return err
	}
	length := b.size
	if p.c.set.Gzip {
		if err := b.pack(p.before, p.after); err != nil {
			return fmt.Errorf("compressing %d rows: %w", len(b.rows), err)
		}
		length = int64(len(b.packed))
	}
	ctx, cancel := context.WithTimeout(ctx, p.c.set.Timeout)
	defer cancel()
	var x exchange
	req, bodies, err := p.request(x.trace(ctx), b, token, length)
	if err != nil {
		return err
	}
	defer bodies.detach()

	resp, err := p.c.http.Do(req)
	if err != nil {
		return p.c.rem.network(p.op, innermost(err))
	}
	defer resp.Body.Close()
	// Read to the end, or the connection cannot be used again.
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	a := httpAnswer{Response: resp, text: text, rows: len(b.rows), secrets: p.c.tokens.secrets(token)}
	var e *Error
	switch {
	case x.early.Load():
		e = p.foreign(a, errEarlier)
	case resp.StatusCode/100 != 2:
		e = p.failed(a)
	case err != nil:
		return p.c.rem.network(p.op, innermost(err))
	default:
		if sent := bodies.detach(); sent != length {
			err = fmt.Errorf("the answer came after %d of %d bytes", sent, length)
		} else {
			err = p.confirm(a)
		}
		if err == nil {
			return nil
		}
		e = p.unconfirmed(a, err)
	}
	switch {
	case e.kind == unauthorized:
		p.c.tokens.drop(token)
	case e.reason == RetryMismatch:
		x.drop()
	}
	return e
}

// httpAnswer is the answer to a batch.
type httpAnswer struct {
	*http.Response
	text    []byte
	rows    int
	secrets []string // texts that no error may repeat
}

// confirm returns nil if an answer proves that the rows are durable, and records how.
func (p *httpTransport) confirm(a httpAnswer) error {
	if a.StatusCode != http.StatusOK {
		return errors.New("only status 200 confirms rows")
	}
	err := confirm(a.text, a.rows, true)
	switch {
	case err == nil:
		p.confirmation.Store(ConfirmedByCount)
	case errors.Is(err, errUncounted):
		p.confirmation.Store(ConfirmedWithoutCount)
		if !p.counted {
			return nil
		}
	}
	return err
}

// unconfirmed explains an answer of 2xx that is no confirmation, by the error in its body
// if that is a known one.
func (p *httpTransport) unconfirmed(a httpAnswer, err error) *Error {
	if body, ok := errors.AsType[*bodyError](err); ok && a.StatusCode == http.StatusOK {
		if status := statusOf(body.Code); status != 0 {
			return p.complete(a, p.c.rem.answered(p.op, a.Response, status, body.Answer, a.secrets))
		}
		if code := databricks.ErrorCode(body.Code, a.secrets); code != "" {
			err = fmt.Errorf("the body holds the error %s", code)
		}
	}
	e := p.foreign(a, err)
	if errors.Is(err, errUncounted) {
		e.Remedy = "if this workspace confirms rows without a count, which bridge check --write-probe shows, set zerobus.confirm to lenient; else " + e.Remedy
	}
	return e
}

// failed explains an answer outside 2xx. The error code decides over the statuses that a
// batch is split for: a gateway's 400 may pass on a refusal that is about no row.
func (p *httpTransport) failed(a httpAnswer) *Error {
	body, status := databricks.DecodeAnswer(a.text), a.StatusCode
	if kind, _ := classify(p.op, status); kind == refused || kind == tooLarge {
		status = cmp.Or(statusOf(body.Code), status)
	}
	return p.complete(a, p.c.rem.answered(p.op, a.Response, status, body, a.secrets))
}

// complete completes e. A refusal without an error code is not in the service's form, and
// no row is given up for it. One for size still splits the batch: a smaller one may pass.
func (p *httpTransport) complete(a httpAnswer, e *Error) *Error {
	if p.op == opInsert && e.Status == http.StatusBadRequest && len(bytes.TrimSpace(a.text)) == 0 {
		// The edge's answer for the host of another workspace or region.
		e.kind, e.foreignHost = configuration, true
		return p.c.rem.byCause(e, causeOtherWorkspace)
	}
	if e.Code != "" || e.kind != refused && e.kind != tooLarge {
		return e
	}
	other := p.foreign(a, errors.New("the body is not an error of the service"))
	if e.kind == tooLarge {
		other.Remedy = "raise the body limit of the proxy or gateway before " + p.url + " (in nginx client_max_body_size), or lower delivery.max_bytes; " + other.Remedy
		if a.rows > 1 {
			other.kind = tooLarge
		}
	}
	return other
}

func (p *httpTransport) foreign(a httpAnswer, err error) *Error {
	return p.c.rem.foreign(p.op, p.url, a.Response, a.secrets, err)
}

// answered explains an answer of failure, with the status that its code stands for.
func (r remedies) answered(op string, resp *http.Response, status int, body databricks.Answer, secrets []string) *Error {
	e := &Error{Op: op, Status: status, came: resp.StatusCode,
		Code:       databricks.ErrorCode(body.Code, secrets),
		Message:    databricks.Clean(cmp.Or(body.Message, resp.Header.Get("X-Databricks-Reason-Phrase")), 500, secrets...),
		RequestID:  databricks.RequestID(resp.Header, secrets),
		RetryAfter: databricks.RetryAfter(resp.Header.Get("Retry-After"), time.Now()),
		column:     databricks.Clean(body.Column, 255, secrets...),
	}
	e.kind, e.reason = classify(op, status)
	why, aboutTable := tableNumbers[numberIn(e.Message)]
	switch {
	case e.kind == refused && aboutSize(e.Message):
		e.kind = tooLarge
		return r.byCause(e, causeTooLarge)
	case e.kind == refused && aboutTable:
		e.kind = configuration // of every row alike
	}
	if aboutTable {
		return r.byCause(e, why)
	}
	return r.byAnswer(e)
}

func (p *httpTransport) request(ctx context.Context, b *batch, token string, length int64) (*http.Request, *bodies, error) {
	all := &bodies{fresh: func() io.Reader {
		if b.packed != nil {
			return bytes.NewReader(b.packed)
		}
		return newRowReader(b.rows, p.before, p.after)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("writing to %s: %w; check zerobus.ingest_path and zerobus.endpoint", p.url, err)
	}
	req.Body, req.GetBody, req.ContentLength = all.open(), func() (io.ReadCloser, error) { return all.open(), nil }, length
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", p.c.set.UserAgent)
	for key, value := range p.header {
		req.Header.Set(key, value)
	}
	req.Header.Set("X-Request-Id", b.id)
	req.Close = b.ownConn // see roundTripper
	if b.packed != nil {
		req.Header.Set("Content-Encoding", "gzip")
	}
	return req, all, nil
}

// batch is the rows of one Write. Its request id is the same for all attempts.
type batch struct {
	rows     [][]byte
	id       string
	size     int64     // bytes of the request before compression
	packed   []byte    // the compressed HTTP body, once it was made
	encoding *encoding // of the rows, under grpc
	ownConn  bool      // the next attempt uses a connection of its own
	attempts int       // requests sent
}

func newBatch(rows [][]byte, size int64) *batch {
	var id [16]byte  // a random UUID (RFC 9562, version 4)
	rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return &batch{rows: rows, id: fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:]), size: size}
}

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// pack compresses the body, once for all attempts.
func (b *batch) pack(before, after string) error {
	if b.packed != nil {
		return nil
	}
	var out bytes.Buffer
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	w.Reset(&out)
	if _, err := io.Copy(w, newRowReader(b.rows, before, after)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.packed = out.Bytes()
	return nil
}

// rowReader reads the rows with commas between, and the texts around them, without joining
// them in memory.
type rowReader struct {
	rows  [][]byte
	after string
	text  string // to be read before the next row
	row   []byte // to be read before text
	next  int    // index of the next row; -1: after was begun
}

func newRowReader(rows [][]byte, before, after string) *rowReader {
	return &rowReader{rows: rows, text: before, after: after}
}

func (r *rowReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(r.row) > 0:
			c := copy(p[n:], r.row)
			r.row, n = r.row[c:], n+c
		case r.text != "":
			c := copy(p[n:], r.text)
			r.text, n = r.text[c:], n+c
		case r.next < 0:
			return n, io.EOF
		case r.next == len(r.rows):
			r.text, r.next = r.after, -1
		default:
			if r.row, r.next = r.rows[r.next], r.next+1; r.next < len(r.rows) {
				r.text = ","
			}
		}
	}
	return n, nil
}

// errDetached is what net/http reads from a body whose caller has returned.
var errDetached = errors.New("the request is over")

// bodies are the bodies of one attempt: net/http asks for another when it repeats a request
// on a new connection. They release the rows on demand, since net/http may read a body after
// Do has returned, when the caller reuses the rows.
type bodies struct {
	fresh func() io.Reader

	mu       sync.Mutex // held while rows are copied
	last     *body
	detached bool
}

// body counts what is read of it.
type body struct {
	all  *bodies
	src  io.Reader
	read int64
}

func (b *bodies) open() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = &body{all: b, src: b.fresh()}
	return b.last
}

// detach returns once no Read uses the rows and none will. It returns how many bytes of the
// last body were read.
func (b *bodies) detach() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
	return b.last.read
}

func (b *body) Read(p []byte) (int, error) {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	if b.all.detached {
		return 0, errDetached
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	return n, err
}

// Close does nothing: net/http does not read a closed body, and detach ends the rest.
func (b *body) Close() error { return nil }

// Rules for what confirms a write under the workspace transport, as
// Config.Confirm names them.
const (
	ConfirmStrict  = "strict"  // the answer counts the rows, and the count is that of the rows sent
	ConfirmLenient = "lenient" // the answer may leave the count out
)

// Forms in which the service confirms rows, as State.Confirmation names them.
const (
	ConfirmedByCount      = "count"    // the answer holds records_ingested
	ConfirmedWithoutCount = "no count" // the answer is an object without records_ingested
)

var (
	errUncounted = errors.New("the answer has no records_ingested")
	errNoObject  = errors.New("the body is not one complete JSON object")
	errCut       = fmt.Errorf("the body is longer than %d bytes", answerMax)
	errTwice     = errors.New("the body names a field twice")
)

// bodyError is a body with an error in it, whatever the HTTP status is.
type bodyError struct{ databricks.Answer }

func (e *bodyError) Error() string { return "the body holds an error" }

const countField = "records_ingested" // in no other spelling

// confirmFields are the fields of an answer that decide, as fold spells them: an error
// in a similar spelling is an error too.
var confirmFields = []string{"recordsingested", "error", "errors", "errorcode", "status", "statuscode"}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// confirm returns nil only if text, the body of an answer with status 200, proves that n
// rows are durable: it is one complete JSON object without an error, and its count of rows
// is n. counted demands the count; errUncounted means that all else is as it should be. The
// error is a *bodyError if the body holds one.
func confirm(text []byte, n int, counted bool) error {
	if len(text) > answerMax {
		return errCut
	}
	fields, err := decidingFields(text)
	if err != nil {
		return err
	}
	for _, name := range []string{"errorcode", "error", "errors"} {
		if _, there := fields[name]; there {
			return &bodyError{errorIn(text, fields)}
		}
	}
	for _, name := range []string{"status", "statuscode"} {
		if status, there := fields[name]; there && !slices.Contains([]string{"OK", "SUCCESS", "SUCCEEDED", "200", "0"}, strings.ToUpper(plain(status))) {
			return &bodyError{errorIn(text, fields)}
		}
	}
	if count, there := fields["recordsingested"]; there && plain(count) != strconv.Itoa(n) {
		return fmt.Errorf("records_ingested is %s, sent were %d", databricks.Clean(string(count), 30), n)
	}
	if _, there := fields[countField]; counted && !there {
		return errUncounted
	}
	return nil
}

// decidingFields returns the values of confirmFields in text, which must be one JSON
// object and nothing else.
func decidingFields(text []byte) (map[string]json.RawMessage, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	if first, err := in.Token(); err != nil || first != json.Delim('{') || !utf8.Valid(text) {
		return nil, errNoObject
	}
	fields := map[string]json.RawMessage{}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return nil, errNoObject
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, errNoObject
		}
		key := fold(name.(string)) // Token returns nothing else before a value
		if !slices.Contains(confirmFields, key) {
			continue
		}
		if _, twice := fields[key]; twice {
			return nil, errTwice
		}
		fields[key] = value
		if name == countField {
			fields[countField] = value
		}
	}
	_, closing := in.Token()
	if _, end := in.Token(); closing != nil || !errors.Is(end, io.EOF) {
		return nil, errNoObject
	}
	return fields, nil
}

// plain is a string's text, or a value of another type as it is written.
func plain(value json.RawMessage) string {
	var text string
	if len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// errorIn reads what went wrong from a body that holds an error: from
// error_code and message, from an object under error, or from a status.
func errorIn(text []byte, fields map[string]json.RawMessage) databricks.Answer {
	a := databricks.DecodeAnswer(text)
	if inner := fields["error"]; len(inner) > 0 && inner[0] == '{' {
		var doc struct {
			Status  json.RawMessage `json:"status"`
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		}
		_ = json.Unmarshal(inner, &doc) // what has another type stays empty
		nested := databricks.DecodeAnswer(inner)
		a.Code = cmp.Or(a.Code, nested.Code, plain(doc.Status), plain(doc.Code))
		a.Message, a.Column = cmp.Or(a.Message, doc.Message), cmp.Or(a.Column, nested.Column)
	} else {
		a.Code = cmp.Or(a.Code, plain(inner))
	}
	a.Code = cmp.Or(a.Code, plain(fields["status"]), plain(fields["statuscode"]))
	return a
}

// codeStatus is the HTTP status that belongs to an error code of the service. It decides
// if the answer has another status.
var codeStatus = map[string]int{
	"INVALID_PARAMETER_VALUE": http.StatusBadRequest, "SCHEMA_MISMATCH": http.StatusBadRequest, "SCHEMA_VALIDATION_FAILED": http.StatusBadRequest,
	"INVALID_ARGUMENT": http.StatusBadRequest, "MALFORMED_REQUEST": http.StatusBadRequest, "BAD_REQUEST": http.StatusBadRequest,
	"UNAUTHENTICATED":   http.StatusUnauthorized,
	"PERMISSION_DENIED": http.StatusForbidden,
	"NOT_FOUND":         http.StatusNotFound, "TABLE_DOES_NOT_EXIST": http.StatusNotFound, "ENDPOINT_NOT_FOUND": http.StatusNotFound,
	"RESOURCE_DOES_NOT_EXIST": http.StatusNotFound, "FEATURE_DISABLED": http.StatusNotFound,
	"FAILED_PRECONDITION":    http.StatusPreconditionFailed,
	"REQUEST_TOO_LARGE":      http.StatusRequestEntityTooLarge,
	"REQUEST_LIMIT_EXCEEDED": http.StatusTooManyRequests, "RESOURCE_LIMIT_EXCEEDED": http.StatusTooManyRequests,
	"RESOURCE_EXHAUSTED": http.StatusTooManyRequests, "QUOTA_EXCEEDED": http.StatusTooManyRequests, "TOO_MANY_REQUESTS": http.StatusTooManyRequests,
	"NOT_IMPLEMENTED": http.StatusNotImplemented, "UNIMPLEMENTED": http.StatusNotImplemented,
	"INTERNAL_ERROR": http.StatusInternalServerError, "INTERNAL": http.StatusInternalServerError,
	"TEMPORARILY_UNAVAILABLE": http.StatusServiceUnavailable, "UNAVAILABLE": http.StatusServiceUnavailable, "ABORTED": http.StatusServiceUnavailable,
	"DEADLINE_EXCEEDED": http.StatusGatewayTimeout,
}

// statusOf returns the status an error code stands for; 0: none is known.
func statusOf(code string) int {
	if n, err := strconv.Atoi(code); err == nil && n >= 400 && n <= 599 {
		return n
	}
	return codeStatus[strings.ToUpper(code)]
}
