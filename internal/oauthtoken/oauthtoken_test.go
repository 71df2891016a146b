package oauthtoken_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/datafly/bridge/internal/oauthtoken"
)

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTolerant(t *testing.T) {
	long := strings.Repeat("y", 1<<20)
	for _, tc := range []struct {
		body    string
		seconds int // until the token expires; 0: unknown
		token   string
	}{
		{`{"access_token":"t","expires_in":3599}`, 3599, "t"},
		{`{"access_token":"t","expires_in":3599.0}`, 3599, "t"},
		{`{"access_token":"t","expires_in":3599.99}`, 3599, "t"},
		{`{"access_token":"t","expires_in":3.6e3}`, 3600, "t"},
		{`{"access_token":"t","expires_in":"3599.0"}`, 3599, "t"},
		{`{"access_token":"t","expires_in":"3599"}`, 3599, "t"},
		{`{"access_token":"t","expires_in":0.25}`, 1, "t"},
		{`{"access_token":"t","expires_in":1e99}`, 1<<31 - 1, "t"},
		{`{"access_token":"t","expires_in":null}`, 0, "t"},
		{`{"access_token":"t"}`, 0, "t"},
		{`{"access_token":"t\r\n","expires_in":60}`, 60, "t"},
		{`{"access_token":"t","expires_in":-1.5}`, 0, ""},
		{`{"access_token":"t","expires_in":"soon"}`, 0, ""},
		{`{"access_token":"t","x":"` + long + `"}`, 0, ""},
		{`<html>`, 0, ""},
		{``, 0, ""},
	} {
		rt := answers(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: r, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(tc.body))}, nil
		})
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: oauthtoken.Tolerant(rt)})
		before := time.Now()
		token, err := (&clientcredentials.Config{ClientID: "i", ClientSecret: "s", TokenURL: "https://idp.example/token"}).Token(ctx)
		name := fmt.Sprintf("%.60s", tc.body)
		switch {
		case tc.token == "" && err == nil:
			t.Errorf("%s: got a token, want an error", name)
		case tc.token != "" && err != nil:
			t.Errorf("%s: got %v, want a token", name, err)
		case tc.token != "":
			if token.AccessToken != tc.token {
				t.Errorf("%s: got token %q, want %q", name, token.AccessToken, tc.token)
			}
			if tc.seconds == 0 != token.Expiry.IsZero() {
				t.Errorf("%s: got expiry %v, want %d seconds", name, token.Expiry, tc.seconds)
			} else if at := before.Add(time.Duration(tc.seconds) * time.Second); tc.seconds > 0 && (token.Expiry.Before(at) || token.Expiry.After(at.Add(time.Minute))) {
				t.Errorf("%s: got expiry %v, want %v", name, token.Expiry, at)
			}
		}
	}
}

// Failures and broken bodies pass unchanged.
func TestTolerantPassesFailuresOn(t *testing.T) {
	broken := errors.New("broken")
	for name, body := range map[string]io.Reader{"refusal": strings.NewReader(`{"expires_in":1.5}`), "cut": io.MultiReader(strings.NewReader(`{"a`), iotest.ErrReader(broken))} {
		status := map[string]int{"refusal": 400, "cut": 200}[name]
		r, err := oauthtoken.Tolerant(answers(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: io.NopCloser(body)}, nil
		})).RoundTrip(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		if name == "refusal" && (err != nil || string(got) != `{"expires_in":1.5}`) || name == "cut" && (!errors.Is(err, broken) || string(got) != `{"a`) {
			t.Errorf("%s: got %q and %v", name, got, err)
		}
	}
	if _, err := oauthtoken.Tolerant(answers(func(*http.Request) (*http.Response, error) { return nil, broken })).RoundTrip(nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want the transport's error", err)
	}
}
