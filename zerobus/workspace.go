package zerobus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
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
	timeout time.Duration
	tokens  *tokens
	http    *http.Client
	advice  adviser
	// explain completes the error of an answer outside 2xx; nil: nothing to add.
	explain func(e *Error, body []byte)
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
		gzip:   set.Gzip, timeout: set.Timeout, tokens: tokens, http: client, advice: advice}
}

const answerMax = 1 << 20 // bytes of an answer that are looked at

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
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if resp.StatusCode/100 == 2 {
		if err != nil {
			return p.advice.network(p.op, innermost(err))
		}
		if sent := bodies.detach(); sent != length {
			return p.advice.misread(p.op, resp.StatusCode, fmt.Errorf("the answer came after %d of %d bytes", sent, length))
		}
		if err := confirm(text, len(b.rows)); err != nil {
			return p.advice.misread(p.op, resp.StatusCode, err)
		}
		return nil
	}
	e := p.advice.answered(p.op, resp, text, append(p.tokens.hidden(), token))
	if p.explain != nil {
		p.explain(e, text)
	}
	if e.kind == unauthorized {
		p.tokens.drop(token)
	}
	return e
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

// confirm checks the body of a 2xx answer to n rows. The service may confirm
// without a count; a page of HTML from a proxy confirms nothing.
func confirm(text []byte, n int) error {
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil
	}
	var doc struct {
		Ingested *json.Number `json:"records_ingested"`
	}
	if err := json.Unmarshal(text, &doc); err != nil || text[0] != '{' {
		return errors.New("the answer is no JSON object with records_ingested")
	}
	if doc.Ingested == nil {
		return nil
	}
	if got, err := doc.Ingested.Int64(); err != nil || got != int64(n) {
		return fmt.Errorf("records_ingested is %s, sent were %d", clean(doc.Ingested.String(), 30), n)
	}
	return nil
}

// answered explains an answer outside 2xx. The secrets never show in it.
func (a adviser) answered(op string, resp *http.Response, text []byte, secrets []string) *Error {
	said := decodeAnswer(text)
	e := &Error{Op: op, Status: resp.StatusCode,
		Code:       errorCode(said.code, secrets),
		Message:    clean(or(said.message, resp.Header.Get("X-Databricks-Reason-Phrase")), 500, secrets...),
		RequestID:  requestID(resp.Header, secrets),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		column:     clean(said.column, 255, secrets...),
	}
	e.kind, e.reason = classify(resp.StatusCode)
	return a.fill(e)
}

// requestID returns what the service calls the request, which is as much its
// own to say as all the rest.
func requestID(h http.Header, secrets []string) string {
	return clean(h.Get("X-Request-Id"), 100, secrets...)
}
