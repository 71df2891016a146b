package zerobus

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	refreshAhead = 5 * time.Minute  // before expiry, at most half the lifetime
	refreshWait  = 10 * time.Second // for a new token while the old one still works; one writer waits, the others go on
	refreshPause = 10 * time.Second // between refreshes that fail while the old token still works
)

// token is one access token. Its value never leaves the package but in an
// Authorization header.
type token struct {
	value   string
	minted  time.Time
	expires time.Time // zero: the endpoint did not say; then it serves those who wait for it and nobody later
	refresh time.Time // from here on a new one is minted while this one still serves
}

// tokens mints and caches the access token of one service principal. It has no
// goroutine: whoever needs a token first mints it, the others wait for that.
type tokens struct {
	id      string
	secret  func() (string, error)
	url     string
	scope   string
	params  url.Values // asked for besides; nil: a plain token
	timeout time.Duration
	http    *http.Client
	advice  adviser
	obs     Observer
	log     *zap.Logger

	mu      sync.Mutex // guards the fields below
	current *token     // nil: none that may be used again
	latest  *token     // the last one minted, for State
	flight  *flight    // nil: nobody is minting
	retryAt time.Time  // no refresh ahead of expiry before
	late    bool       // the last refresh failed, and that was said
	tried   string     // the secret last presented
}

// flight is a mint in progress; its results may be read once done is closed.
type flight struct {
	done      chan struct{}
	tok       *token
	err       error
	abandoned bool // the minting caller's context ended: the outcome says nothing
}

// get returns a token that may be used now. It waits for a mint in progress,
// no longer than ctx lives.
func (s *tokens) get(ctx context.Context) (string, error) {
	for {
		now := time.Now()
		s.mu.Lock()
		if t := s.current; t != nil && now.Before(t.expires) &&
			(now.Before(t.refresh) || now.Before(s.retryAt) || s.flight != nil) {
			s.mu.Unlock()
			return t.value, nil
		}
		f, mine := s.flight, false
		if f == nil {
			f, mine = &flight{done: make(chan struct{})}, true
			s.flight = f
		}
		s.mu.Unlock()
		if mine {
			s.fly(ctx, f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if f.abandoned && !mine {
			continue
		}
		if f.err != nil {
			return "", f.err
		}
		return f.tok.value, nil
	}
}

// fly mints and publishes the outcome in f.
func (s *tokens) fly(ctx context.Context, f *flight) {
	limit := s.timeout
	s.mu.Lock()
	if s.current != nil && time.Now().Before(s.current.expires) {
		limit = min(limit, refreshWait)
	}
	s.mu.Unlock()
	tok, err := s.mint(ctx, limit)
	f.abandoned = err != nil && ctx.Err() != nil
	if !f.abandoned && s.obs != nil {
		s.obs.TokenMinted(err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight = nil
	f.tok, f.err = tok, err
	if err == nil {
		s.current, s.latest, s.late = tok, tok, false
		if tok.expires.IsZero() {
			s.current = nil
		}
		return
	}
	if now := time.Now(); s.current != nil && now.Before(s.current.expires) && !f.abandoned {
		// The old token still works: rows go on flowing, and somebody is told
		// while there is time to mend it.
		f.tok, f.err = s.current, nil
		s.retryAt = now.Add(refreshPause)
		if !s.late {
			s.late = true
			s.log.Warn("refreshing the token failed, the present one serves until it expires",
				zap.Time("expires", s.current.expires), zap.Error(err))
		}
	}
}

// mint asks the endpoint for a token, once, and waits no longer than limit.
func (s *tokens) mint(ctx context.Context, limit time.Duration) (*token, error) {
	secret, err := s.secret()
	if err == nil && secret == "" {
		err = errors.New("it is empty")
	}
	s.mu.Lock()
	s.tried = secret
	s.mu.Unlock()
	if err != nil {
		return nil, &Error{Op: opToken, Err: err, kind: configuration, Meaning: "the client secret could not be read",
			Remedy: "check zerobus.client_secret or the file it comes from"}
	}

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	config := clientcredentials.Config{ClientID: s.id, ClientSecret: secret, TokenURL: s.url,
		Scopes: strings.Fields(s.scope), EndpointParams: s.params, AuthStyle: oauth2.AuthStyleInHeader}
	asked := time.Now()
	got, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, s.http))
	if err != nil {
		return nil, s.explain(err)
	}
	if strings.ContainsFunc(got.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, s.advice.misread(opToken, http.StatusOK, errors.New("the token holds characters no header may carry"))
	}
	t := &token{value: got.AccessToken, minted: asked, expires: got.Expiry}
	if !got.Expiry.IsZero() {
		t.refresh = got.Expiry.Add(-min(refreshAhead, got.Expiry.Sub(asked)/2))
	}
	return t, nil
}

// explain turns an oauth2 error into ours. What oauth2 says may hold the whole
// body of the answer, so none of its text is passed on.
func (s *tokens) explain(err error) error {
	var answered *oauth2.RetrieveError
	var wire *url.Error
	if errors.As(err, &wire) {
		return s.advice.network(opToken, wire.Err)
	}
	if !errors.As(err, &answered) {
		return s.advice.misread(opToken, http.StatusOK, errors.New("the answer is no token"))
	}
	status := answered.Response.StatusCode
	secrets := s.hidden()
	body := decodeAnswer(answered.Body)
	e := &Error{Op: opToken, Status: status,
		Code:       errorCode(or(answered.ErrorCode, body.code), secrets),
		Message:    clean(or(answered.ErrorDescription, body.message), 500, secrets...),
		RequestID:  requestID(answered.Response.Header, secrets),
		RetryAfter: retryAfter(answered.Response.Header.Get("Retry-After"), time.Now()),
	}
	if e.kind, e.reason = classify(status); e.kind != transient {
		e.kind = configuration // no status of this endpoint is about a row, or mended by a fresh token
	}
	return s.advice.fill(e)
}

// hidden returns the texts that no error may repeat, in all the forms a service
// could echo them.
func (s *tokens) hidden() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	form := url.QueryEscape(s.tried)
	texts := []string{s.tried, form, base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(s.id) + ":" + form))}
	if s.latest != nil {
		texts = append(texts, s.latest.value)
	}
	return texts
}

// drop forgets the token, if it is still the one that was used: another caller
// may have replaced it meanwhile.
func (s *tokens) drop(used string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.value == used {
		s.current = nil
	}
}

// replaced reports whether the secret is another than the last one presented,
// and forgets the old one's token if so.
func (s *tokens) replaced() bool {
	secret, err := s.secret()
	if err != nil || secret == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret == s.tried {
		return false
	}
	s.current = nil
	return true
}

// times returns when the last token was minted and when it expires.
func (s *tokens) times() (minted, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return time.Time{}, time.Time{}
	}
	return s.latest.minted, s.latest.expires
}
