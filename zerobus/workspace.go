package zerobus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// transport carries one batch to the service.
type transport interface {
	// size returns the bytes rows make on the wire, before compression.
	size(rows [][]byte) int64
	// send makes one attempt and returns nil only once every row is durable.
	// Its errors are *Error, or the context's own. After an unauthorized one
	// the next send uses a fresh token. When it returns, nothing touches the
	// batch's rows any more. A batch without rows proves the way and writes
	// nothing. Safe for concurrent use.
	send(ctx context.Context, b *batch) error
	// probe is send for a batch that may hold a row the service refuses: where
	// a refusal would take others' batches along, it keeps apart from them.
	probe(ctx context.Context, b *batch) error
	// close lets go of connections, waiting for what the transport started.
	close()
}

// poster posts JSON over HTTP: to the workspace's own ingest path, or to the
// endpoint of Zerobus.
type poster struct {
	op      string
	url     string
	before  string // what stands in the body before the rows and behind them
	after   string
	header  map[string]string
	gzip    bool
	counted bool // a confirmation has to count the rows
	timeout time.Duration
	tokens  *tokens
	http    *http.Client
	advice  adviser
	// explain completes the error of an answer; nil: nothing to add.
	explain func(e *Error, body []byte)

	form atomic.Value // string: how the service confirmed last, one of State.Confirmation
}

// newWorkspace returns the transport that posts to the workspace itself:
//
//	POST {workspace_url}/api/2.0/streaming-ingestion/ingest
//	{"table":"catalog.schema.table","records":[{…},{…}]}
//
// The path, the token and the statuses are those of Datafly's integration page
// for Databricks; the body is this project's reading of it, since no public
// page shows one.
func newWorkspace(set settings, tokens *tokens, client *http.Client, advice adviser) *poster {
	name, err := json.Marshal(set.table.String())
	if err != nil {
		panic(err) // a string always marshals
	}
	return &poster{op: opIngest, url: set.ingest, before: `{"table":` + string(name) + `,"records":[`, after: "]}",
		header: map[string]string{"Content-Type": "application/json; charset=utf-8", "User-Agent": set.UserAgent},
		gzip:   set.Gzip, counted: set.Confirm == ConfirmStrict, timeout: set.Timeout, tokens: tokens, http: client, advice: advice}
}

const answerMax = 1 << 20 // bytes an answer may have

func (p *poster) close() { p.http.CloseIdleConnections() }

func (p *poster) probe(ctx context.Context, b *batch) error { return p.send(ctx, b) }

func (p *poster) size(rows [][]byte) int64 {
	n := int64(len(p.before) + len(p.after) + max(len(rows)-1, 0))
	for _, row := range rows {
		n += int64(len(row))
	}
	return n
}

func (p *poster) send(ctx context.Context, b *batch) error {
	token, err := p.tokens.get(ctx)
	if err != nil {
		return err
	}
	if p.gzip {
		if err := b.pack(p.before, p.after); err != nil {
			return fmt.Errorf("compressing %d rows: %w", len(b.rows), err)
		}
	}
	length := b.size
	if b.packed != nil {
		length = int64(len(b.packed))
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var x exchange
	ctx = x.watch(ctx)
	req, bodies, err := p.request(ctx, b, token, length)
	if err != nil {
		return err
	}
	defer bodies.detach()

	resp, err := p.http.Do(req)
	if err != nil {
		return p.advice.network(p.op, innermost(err))
	}
	defer resp.Body.Close()
	// Read to the end, or the connection cannot be used again.
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	secrets := append(p.tokens.hidden(), token)
	var e *Error
	switch {
	case !x.answered():
		e = p.advice.foreign(p.op, p.url, resp, secrets, errEarlier)
	case resp.StatusCode/100 != 2:
		e = p.failed(resp, text, len(b.rows), secrets)
	case err != nil:
		return p.advice.network(p.op, innermost(err))
	default:
		if sent := bodies.detach(); sent != length {
			err = fmt.Errorf("the answer came after %d of %d bytes", sent, length)
		} else {
			err = p.confirm(resp.StatusCode, text, len(b.rows))
		}
		if err == nil {
			return nil
		}
		e = p.unconfirmed(resp, text, len(b.rows), secrets, err)
	}
	switch {
	case e.kind == unauthorized:
		p.tokens.drop(token)
	case e.reason == RetryMismatch:
		x.drop()
	}
	return e
}

// confirm returns nil if an answer proves that n rows are durable, and notes
// in which form it did.
func (p *poster) confirm(status int, text []byte, n int) error {
	if status != http.StatusOK {
		return errors.New("only status 200 confirms rows")
	}
	err := confirm(text, n, false)
	if err != nil {
		return err
	}
	if err = confirm(text, n, true); err == nil {
		p.form.Store(ConfirmedByCount)
		return nil
	}
	p.form.Store(ConfirmedWithoutCount)
	if p.counted {
		return err
	}
	return nil
}

// unconfirmed explains an answer of 2xx that is no confirmation: by the error
// in its body, if it holds one that is known.
func (p *poster) unconfirmed(resp *http.Response, text []byte, n int, secrets []string, cause error) *Error {
	var said *bodyError
	if errors.As(cause, &said) && resp.StatusCode == http.StatusOK {
		if as := statusOf(said.code); as != 0 {
			return p.explained(p.advice.answered(p.op, resp, as, said.answer, secrets), text, n, resp, secrets)
		}
		if code := errorCode(said.code, secrets); code != "" {
			cause = fmt.Errorf("the body holds the error %s", code)
		}
	}
	e := p.advice.foreign(p.op, p.url, resp, secrets, cause)
	if errors.Is(cause, errUncounted) {
		e.Remedy = "if this workspace confirms rows without a count, which bridge check --write-probe shows, set zerobus.confirm to lenient; else " + e.Remedy
	}
	return e
}

// failed explains an answer outside 2xx.
func (p *poster) failed(resp *http.Response, text []byte, n int, secrets []string) *Error {
	said := decodeAnswer(text)
	status := resp.StatusCode
	if as := statusOf(said.code); as != 0 && aboutRows(status) {
		status = as // a gateway's 400 that passes on another refusal is about no row
	}
	return p.explained(p.advice.answered(p.op, resp, status, said, secrets), text, n, resp, secrets)
}

// aboutRows are the statuses that a batch is taken apart for.
func aboutRows(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnprocessableEntity || status == http.StatusRequestEntityTooLarge
}

// explained completes e for a batch of n rows. A refusal without an error code
// is not in the service's form, and no row is given up for it. One for size
// still has the batch taken apart: what is smaller may pass.
func (p *poster) explained(e *Error, text []byte, n int, resp *http.Response, secrets []string) *Error {
	if p.explain != nil {
		p.explain(e, text)
	}
	if e.Code != "" || e.kind != refused && e.kind != tooLarge {
		return e
	}
	other := p.advice.foreign(p.op, p.url, resp, secrets, errors.New("the body is not an error of the service"))
	if e.kind == tooLarge {
		other.Remedy = "raise the body limit of the proxy or gateway before " + p.url + " (in nginx client_max_body_size), or lower delivery.max_bytes; " + other.Remedy
		if n > 1 {
			other.kind = tooLarge
		}
	}
	return other
}

func (p *poster) request(ctx context.Context, b *batch, token string, length int64) (*http.Request, *bodies, error) {
	all := &bodies{fresh: func() *body { return b.open(p.before, p.after) }}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("writing to %s: %w; check zerobus.ingest_path and zerobus.endpoint", p.url, err)
	}
	req.Body, req.GetBody, req.ContentLength = all.open(), func() (io.ReadCloser, error) { return all.open(), nil }, length
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	for key, value := range p.header {
		req.Header.Set(key, value)
	}
	req.Header.Set("X-Request-Id", b.id)
	req.Close = b.alone // see roundTripper
	if b.packed != nil {
		req.Header.Set("Content-Encoding", "gzip")
	}
	return req, all, nil
}

// bodies are the bodies handed to net/http for one attempt: it asks for
// another when it repeats a request on a new connection.
type bodies struct {
	fresh  func() *body
	mu     sync.Mutex // guards opened
	opened []*body
}

func (b *bodies) open() io.ReadCloser {
	one := b.fresh()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = append(b.opened, one)
	return one
}

// detach lets go of the rows and reports how many bytes of the last body were
// read.
func (b *bodies) detach() (read int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.opened {
		read = one.detach()
	}
	return read
}

// answered explains an answer that says failure, with the status its code
// stands for. The secrets never show in it.
func (a adviser) answered(op string, resp *http.Response, status int, said answer, secrets []string) *Error {
	e := &Error{Op: op, Status: status, came: resp.StatusCode,
		Code:       errorCode(said.code, secrets),
		Message:    clean(or(said.message, resp.Header.Get("X-Databricks-Reason-Phrase")), 500, secrets...),
		RequestID:  requestID(resp.Header, secrets),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		column:     clean(said.column, 255, secrets...),
	}
	e.kind, e.reason = classify(status)
	number := numberIn(e.Message)
	switch {
	case e.kind == refused && aboutSize(e.Message):
		e.kind, e.Meaning, e.Remedy = tooLarge, tooBig, lowerBatch
		return e
	case e.kind == refused && aboutTable(number):
		e.kind = configuration // of every row alike
	}
	e = a.fill(e)
	a.numbered(e, number)
	return e
}

// requestID returns what the service calls the request, which is as much its
// own to say as all the rest.
func requestID(h http.Header, secrets []string) string {
	return clean(h.Get("X-Request-Id"), 100, secrets...)
}
