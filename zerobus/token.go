package zerobus

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/databricks"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	refreshAhead = 5 * time.Minute  // before expiry, at most half the lifetime
	refreshWait  = 10 * time.Second // for a refresh while the old token is valid; one writer waits
	refreshPause = 10 * time.Second // between failed refreshes while the old token is valid
)

// token is one access token. Its value leaves the package only in an Authorization
// header.
type token struct {
	value   string
	minted  time.Time
	expires time.Time // zero: unknown; then only the callers that wait for it use it
	refresh time.Time // from here on it is refreshed while it is still valid
}

// tokenSource requests and caches the access token of one service principal. The first
// caller that needs a token requests it, the others wait.
type tokenSource struct {
	c      *route
	params url.Values // additional parameters; nil: a plain token
	http   *http.Client

	mu        sync.Mutex    // guards the fields below
	current   *token        // nil: none that may be used again
	latest    *token        // the last one minted, for State
	minting   *call[string] // nil: no request is under way
	retryAt   time.Time     // no early refresh before
	late      bool          // the last refresh failed, and was logged
	presented string        // the secret, or the token to exchange, last presented
	asked     bool          // a token was requested once
}

// get returns a valid token. It waits for a request under way until ctx ends.
func (s *tokenSource) get(ctx context.Context) (string, error) {
	for {
		now := time.Now()
		s.mu.Lock()
		if t := s.current; t != nil && now.Before(t.expires) &&
			(now.Before(t.refresh) || now.Before(s.retryAt) || s.minting != nil) {
			s.mu.Unlock()
			return t.value, nil
		}
		c, mine := join(&s.minting)
		s.mu.Unlock()
		if mine {
			s.mintShared(ctx, c)
		}
		if value, again, err := c.wait(ctx, mine); !again {
			return value, err
		}
	}
}

// mintShared requests a token and publishes the result in c.
func (s *tokenSource) mintShared(ctx context.Context, c *call[string]) {
	limit := s.c.set.Timeout
	s.mu.Lock()
	if s.current != nil && time.Now().Before(s.current.expires) {
		limit = min(limit, refreshWait)
	}
	s.mu.Unlock()
	var tok *token
	err := errInterrupted
	defer func() { s.publish(c, tok, err) }()
	tok, err = s.mint(ctx, limit)
	c.abandoned = err != nil && ctx.Err() != nil
	if !c.abandoned {
		s.c.obs.TokenMinted(err)
	}
}

// publish ends a token request for all that wait for it.
func (s *tokenSource) publish(c *call[string], tok *token, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.done)
	s.minting = nil
	if err == nil {
		c.value = tok.value
		s.current, s.latest, s.late = tok, tok, false
		if tok.expires.IsZero() {
			s.current = nil
		}
		return
	}
	c.err = err
	if now := time.Now(); s.current != nil && now.Before(s.current.expires) && !c.abandoned {
		// The old token is still valid, so rows keep flowing while the log shows the fault.
		c.value, c.err = s.current.value, nil
		s.retryAt = now.Add(refreshPause)
		if !s.late {
			s.late = true
			s.c.log.Warn("refreshing the token failed, the present one serves until it expires",
				zap.Time("expires", s.current.expires), zap.Error(err))
		}
	}
}

// mint sends one token request and waits at most limit.
func (s *tokenSource) mint(ctx context.Context, limit time.Duration) (*token, error) {
	secret, err := s.c.set.ReadCredential()
	if err == nil && secret == "" {
		err = errors.New("it is empty")
	}
	s.mu.Lock()
	s.presented, s.asked = secret, true
	s.mu.Unlock()
	exchanging := s.c.set.TokenExchange.TokenFile != ""
	var jwt subject
	if err == nil && exchanging {
		jwt, err = parseSubject(secret)
	}
	if err != nil {
		e := &Error{Op: opToken, Err: err, kind: configuration}
		if exchanging {
			return nil, s.c.rem.byCause(e, causeNoJWT)
		}
		return nil, s.c.rem.byCause(e, causeNoSecret)
	}

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	config := clientcredentials.Config{ClientID: s.c.set.ClientID, ClientSecret: secret, TokenURL: s.c.set.token,
		Scopes: strings.Fields(s.c.set.Scope), EndpointParams: s.params, AuthStyle: oauth2.AuthStyleInHeader}
	if exchanging {
		s.c.set.TokenExchange.exchange(&config, secret)
	}
	asked := time.Now()
	got, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, s.http))
	if err != nil {
		return nil, s.explain(err, jwt)
	}
	if strings.ContainsFunc(got.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, s.c.rem.misread(opToken, http.StatusOK, errors.New("the token holds characters no header may carry"))
	}
	t := &token{value: got.AccessToken, minted: asked, expires: got.Expiry}
	// A token lives no longer than the one it was exchanged for, whatever the answer has.
	// This machine's clock may be wrong: an end in the past is not believed.
	if end := jwt.expires(); end.After(asked) && end.Before(t.expires) {
		t.expires = end
	}
	if !t.expires.IsZero() {
		t.refresh = t.expires.Add(-min(refreshAhead, t.expires.Sub(asked)/2))
	}
	return t, nil
}

// explain turns an error of oauth2 into an *Error. The text of the former may hold the
// whole body, so it is dropped. jwt is the token that was to be exchanged, if any.
func (s *tokenSource) explain(err error, jwt subject) error {
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return s.c.rem.network(opToken, sent.Err)
	}
	answered, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return s.c.rem.misread(opToken, http.StatusOK, errors.New("the answer is no token"))
	}
	secrets, body, header := s.secrets(), databricks.DecodeAnswer(answered.Body), answered.Response.Header
	e := &Error{Op: opToken, Status: answered.Response.StatusCode,
		Code:       databricks.ErrorCode(cmp.Or(answered.ErrorCode, body.Code), secrets),
		Message:    databricks.Clean(cmp.Or(answered.ErrorDescription, body.Message), 500, secrets...),
		RequestID:  databricks.RequestID(header, secrets),
		RetryAfter: databricks.RetryAfter(header.Get("Retry-After"), time.Now()),
	}
	if e.kind, e.reason = classify(opToken, e.Status); e.kind != transient {
		e.kind = configuration // no status of this endpoint is about a row or fixed by a fresh token
	}
	e = s.c.rem.byAnswer(e)
	if s.c.set.TokenExchange.TokenFile != "" {
		return s.refusedExchange(e, jwt)
	}
	return e
}

// secrets returns the texts that no error may repeat, in every form that a service could
// echo, and the given ones.
func (s *tokenSource) secrets(more ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	form := url.QueryEscape(s.presented)
	texts := append(more, s.presented, form, base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(s.c.set.ClientID)+":"+form)))
	if s.latest != nil {
		texts = append(texts, s.latest.value)
	}
	return texts
}

// drop forgets the token that was used, unless another caller has replaced it.
func (s *tokenSource) drop(used string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.value == used {
		s.current = nil
	}
}

// secretReplaced reports whether the secret differs from the last one presented, and
// forgets the old one's token if so.
func (s *tokenSource) secretReplaced() bool {
	secret, err := s.c.set.ReadCredential()
	if err != nil || secret == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret == s.presented || !s.asked {
		return false
	}
	s.current = nil
	return true
}

// times returns when the last token was minted and when it expires.
func (s *tokenSource) times() (minted, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return time.Time{}, time.Time{}
	}
	return s.latest.minted, s.latest.expires
}
