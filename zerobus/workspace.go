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
	// send makes one attempt and returns nil only once every row is durable.
	// Its errors are *Error, or the context's own. After an unauthorized one
	// the next send uses a fresh token. When it returns, nothing touches the
	// batch's rows any more. Safe for concurrent use.
	send(ctx context.Context, b *batch) error
	// close lets go of idle connections.
	close()
}

// workspace posts JSON to the workspace's own ingest path:
//
//	POST {workspace_url}/api/2.0/streaming-ingestion/ingest
//	{"table":"catalog.schema.table","records":[{…},{…}]}
//
// The path, the token and the statuses are those of Datafly's integration page
// for Databricks; the body is this project's reading of it, since no public
// page shows one.
type workspace struct {
	url       string
	userAgent string
	gzip      bool
	timeout   time.Duration
	tokens    *tokens
	http      *http.Client
	advice    adviser
}

const answerMax = 1 << 20 // bytes of an answer that are looked at

func (w *workspace) close() { w.http.CloseIdleConnections() }

func (w *workspace) send(ctx context.Context, b *batch) error {
	token, err := w.tokens.get(ctx)
	if err != nil {
		return err
	}
	if w.gzip {
		if err := b.pack(); err != nil {
			return fmt.Errorf("compressing %d rows: %w", len(b.rows), err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	req, bodies, err := w.request(ctx, b, token)
	if err != nil {
		return err
	}
	defer bodies.detach()

	resp, err := w.http.Do(req)
	if err != nil {
		return w.advice.network(opIngest, innermost(err))
	}
	defer resp.Body.Close()
	// Read to the end, or the connection cannot be used again.
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if resp.StatusCode/100 == 2 {
		if err != nil {
			return w.advice.network(opIngest, innermost(err))
		}
		if sent := bodies.detach(); sent != b.length() {
			return w.advice.misread(opIngest, resp.StatusCode, fmt.Errorf("the answer came after %d of %d bytes", sent, b.length()))
		}
		if err := confirm(text, len(b.rows)); err != nil {
			return w.advice.misread(opIngest, resp.StatusCode, err)
		}
		return nil
	}
	e := w.advice.answered(opIngest, resp, text, append(w.tokens.hidden(), token))
	if e.kind == unauthorized {
		w.tokens.drop(token)
	}
	return e
}

func (w *workspace) request(ctx context.Context, b *batch, token string) (*http.Request, *bodies, error) {
	all := &bodies{batch: b}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("writing to %s: %w; check zerobus.ingest_path", w.url, err)
	}
	req.Body, req.GetBody, req.ContentLength = all.open(), func() (io.ReadCloser, error) { return all.open(), nil }, b.length()
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", w.userAgent)
	req.Header.Set("X-Request-Id", b.id)
	if b.packed != nil {
		req.Header.Set("Content-Encoding", "gzip")
	}
	return req, all, nil
}

// bodies are the bodies handed to net/http for one attempt: it asks for
// another when it repeats a request on a new connection.
type bodies struct {
	batch  *batch
	mu     sync.Mutex // guards opened
	opened []*body
}

func (b *bodies) open() io.ReadCloser {
	one := b.batch.open()
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
		RequestID:  requestID(resp.Header),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		column:     clean(said.column, 255, secrets...),
	}
	e.kind, e.reason = classify(resp.StatusCode)
	return a.fill(e)
}

func requestID(h http.Header) string { return clean(h.Get("X-Request-Id"), 100) }
