package e2e_test

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// evidence is all that a test has seen of the program's words, and what must
// not occur in them.
type evidence struct {
	mu      sync.Mutex // guards the fields below
	secrets map[string]string
	texts   []text
}

// text is something the program said.
type text struct {
	where string
	said  func() string
}

// newEvidence searches what was collected when the test ends.
func newEvidence(t testing.TB) *evidence {
	e := &evidence{secrets: map[string]string{}}
	t.Cleanup(func() {
		for _, found := range e.search() {
			t.Error(found)
		}
	})
	return e
}

// secret adds something that must not be shown, in every form it travels in.
func (e *evidence) secret(name, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if value == "" {
		return
	}
	e.secrets[value] = name
	e.secrets[url.QueryEscape(value)] = name + ", escaped"
	e.secrets[base64.StdEncoding.EncodeToString([]byte(value))] = name + ", in base64"
}

// text adds something the program said; said is called when the test ends.
func (e *evidence) text(name string, said func() string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.texts = append(e.texts, text{name, said})
}

// authorization matches the value of such a header, whoever's it is.
var authorization = regexp.MustCompile(`(?i)\b(bearer|basic) +[a-z0-9+/=._~-]{8,}`)

func (e *evidence) search() (found []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.texts {
		where, text := t.where, strings.ReplaceAll(t.said(), "Bearer YOUR_TOKEN", "") // of the page's call, which the demo prints
		for value, name := range e.secrets {
			if at := strings.Index(text, value); at >= 0 {
				found = append(found, where+" shows "+name+": "+excerpt(text, at))
			}
		}
		if at := authorization.FindStringIndex(text); at != nil {
			found = append(found, where+" shows an Authorization value: "+excerpt(text, at[0]))
		}
	}
	return found
}

func excerpt(text string, at int) string { return text[max(0, at-200):min(len(text), at+200)] }

// The search itself must find what it is for.
func TestSearchFindsSecrets(t *testing.T) {
	for _, said := range []string{
		"password is p+ss/word==", "form p%2Bss%2Fword%3D%3D", `{"header":"cCtzcy93b3JkPT0="}`,
		"Authorization: Bearer eyJhbGciOi.x.y", "authorization=[Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==]",
	} {
		e := &evidence{secrets: map[string]string{}}
		e.secret("the password", "p+ss/word==")
		e.text("log", func() string { return said })
		if got := e.search(); len(got) == 0 {
			t.Errorf("%q: got nothing, want a finding", said)
		}
		e.texts = nil
		e.text("log", func() string { return "the token was refused; the Basic plan, a bearer of news" })
		if got := e.search(); len(got) != 0 {
			t.Errorf("got %v of harmless words, want nothing", got)
		}
	}
}
