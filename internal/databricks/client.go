// Package databricks calls the REST APIs of one Databricks workspace: Unity Catalog, grants,
// SQL statements, and the facts that lead to its Zerobus endpoint. It knows nothing of rows,
// and requests no tokens.
package databricks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client calls one workspace as one principal. It is safe for concurrent use once its fields
// are set.
type Client struct {
	// URL is the workspace: scheme://host[:port].
	URL string
	// HTTP must not follow redirects, since requests carry a token.
	HTTP *http.Client
	// Token returns an access token for the workspace's APIs.
	Token func(ctx context.Context) (string, error)
	// Refused, if not nil, is called with a token that the workspace has answered with 401. The
	// call is then repeated once with another token.
	Refused func(token string)
	// Secrets, if not nil, returns texts besides the token that no error may repeat.
	Secrets func() []string
	// UserAgent is sent with every request.
	UserAgent string
	// Timeout bounds one request. 0 is 10 seconds.
	Timeout time.Duration
}

const (
	defaultTimeout = 10 * time.Second
	answerMax      = 4 << 20 // bytes of an answer
	tries          = 3       // of a GET that meets a transient fault
	pause          = 500 * time.Millisecond
	pauseMax       = 10 * time.Second // before a repetition, whatever the workspace asks for
)

// Error is an answer outside 2xx, or a missing or unusable one. It has no remedy: callers
// know what a call was for.
type Error struct {
	Call        string // such as "GET /api/2.1/unity-catalog/metastore_summary"
	Status      int    // HTTP status; 0: no answer
	Code        string // the workspace's error code, such as PERMISSION_DENIED; may be empty
	Message     string // of the workspace: one line, at most 500 bytes, no secrets
	RequestID   string
	RetryAfter  time.Duration
	WorkspaceID string // of the workspace that answered, in digits; may be empty
	Err         error  // the cause below HTTP, or why the answer is unusable; may be nil
}

// Error names the call and the answer, without a remedy.
func (e *Error) Error() string {
	text := e.Call
	if e.Status != 0 {
		text += fmt.Sprintf(": HTTP %d", e.Status)
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Message != "" {
		text += fmt.Sprintf(" %q", e.Message)
	}
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause below HTTP.
func (e *Error) Unwrap() error { return e.Err }

// Transient reports whether a later call may succeed without anybody's help.
func (e *Error) Transient() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Status == 0 || e.Status >= 500 && e.Status != http.StatusNotImplemented
}

// workspaceHeader carries the workspace id in the answers of a workspace's REST APIs.
const workspaceHeader = "X-Databricks-Org-Id"

// get calls GET and decodes the answer into out. It tries three times on transient faults.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) (http.Header, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	for try := 1; ; try++ {
		header, err := c.call(ctx, http.MethodGet, path, nil, out)
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Transient() || try == tries {
			return header, err
		}
		timer := time.NewTimer(min(cmp.Or(e.RetryAfter, pause<<(try-1)), pauseMax))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// call sends one request, and again with another token if the token was refused. in is sent
// as JSON, out is decoded from the answer; both may be nil. Errors are *Error, or those of
// Token.
func (c *Client) call(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	header, token, err := c.once(ctx, method, path, in, out)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusUnauthorized && c.Refused != nil {
		c.Refused(token)
		header, _, err = c.once(ctx, method, path, in, out)
	}
	return header, err
}

func (c *Client) once(ctx context.Context, method, path string, in, out any) (header http.Header, token string, err error) {
	name, _, _ := strings.Cut(path, "?")
	e := &Error{Call: method + " " + name}
	fail := func(err error) (http.Header, string, error) {
		e.Err = err
		return nil, token, e
	}
	if token, err = c.Token(ctx); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, defaultTimeout))
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fail(err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return fail(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.UserAgent)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		if sent, ok := errors.AsType[*url.Error](err); ok {
			err = sent.Err
		}
		return fail(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	secrets := []string{token}
	if c.Secrets != nil {
		secrets = append(secrets, c.Secrets()...)
	}
	e.Status, e.WorkspaceID = resp.StatusCode, numeric(resp.Header.Get(workspaceHeader))
	if resp.StatusCode/100 != 2 {
		answer := DecodeAnswer(text)
		e.Code, e.Message = ErrorCode(answer.Code, secrets), Clean(cmp.Or(answer.Message, resp.Header.Get("X-Databricks-Reason-Phrase")), 500, secrets...)
		e.RequestID, e.RetryAfter = RequestID(resp.Header, secrets), RetryAfter(resp.Header.Get("Retry-After"), time.Now())
		return nil, token, e
	}
	switch {
	case err != nil:
		e.Status = 0
		return fail(err)
	case len(text) > answerMax:
		return fail(fmt.Errorf("the answer is over %d bytes", answerMax))
	case out != nil && (!strings.HasPrefix(strings.TrimSpace(string(text)), "{") || json.Unmarshal(text, out) != nil):
		return fail(errors.New("the answer is not of the workspace's form"))
	}
	return resp.Header, token, nil
}
