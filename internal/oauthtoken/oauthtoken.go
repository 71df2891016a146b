// Package oauthtoken lets golang.org/x/oauth2 read the answers of token endpoints that
// are right for people and other clients, and too loose for it.
package oauthtoken

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"

	"github.com/datafly/bridge/internal/plaintext"
)

// maxAnswer is the most that golang.org/x/oauth2 reads of an answer.
const maxAnswer = 1 << 20

// Tolerant returns a transport to a token endpoint over rt. It takes an
// expires_in with a fraction or an exponent, such as 3599.0, for whole seconds,
// and line breaks off the ends of access_token. Any other answer is passed on as
// it came. It is safe for concurrent use if rt is.
func Tolerant(rt http.RoundTripper) http.RoundTripper { return &tolerant{rt} }

type tolerant struct{ over http.RoundTripper }

// RoundTrip is that of rt with the answer corrected.
func (t *tolerant) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.over.RoundTrip(r)
	if err != nil || answer.StatusCode/100 != 2 {
		return answer, err
	}
	body := answer.Body
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(data) <= maxAnswer {
		data = correct(data)
		answer.ContentLength = int64(len(data))
	}
	// What is left of the body follows: its end, its error, or the rest of an
	// answer that is too large for whoever reads it.
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), body), body}
	return answer, nil
}

// correct returns the answer with what oauth2 cannot read corrected.
func correct(answer []byte) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(answer, &fields) != nil {
		return answer
	}
	changed := false
	if seconds, ok := wholeSeconds(fields["expires_in"]); ok {
		fields["expires_in"], changed = seconds, true
	}
	var token string
	if json.Unmarshal(fields["access_token"], &token) == nil && plaintext.Secret(token) != token {
		if text, err := json.Marshal(plaintext.Secret(token)); err == nil {
			fields["access_token"], changed = text, true
		}
	}
	if !changed {
		return answer
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return answer
	}
	return out
}

// wholeSeconds rounds a number that is not whole down, to one second at least.
// ok is false for what needs no rounding and for what is no lifetime.
func wholeSeconds(raw json.RawMessage) (seconds json.RawMessage, ok bool) {
	var n json.Number // takes numbers in quotes, too
	if json.Unmarshal(raw, &n) != nil {
		return nil, false
	}
	if _, err := n.Int64(); err == nil {
		return nil, false
	}
	f, err := n.Float64()
	if err != nil || f <= 0 {
		return nil, false
	}
	return strconv.AppendInt(nil, max(1, int64(min(f, math.MaxInt32))), 10), true
}
