// Package oauthtoken corrects answers of token endpoints that other OAuth clients accept
// and golang.org/x/oauth2 rejects.
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

// maxAnswer is how much of an answer golang.org/x/oauth2 reads.
const maxAnswer = 1 << 20

// Tolerant returns a transport to a token endpoint over rt. It rounds an expires_in with
// a fraction or an exponent, such as 3599.0, to whole seconds, and trims line breaks from
// access_token. Any other answer passes unchanged. It is safe for concurrent use if rt is.
func Tolerant(rt http.RoundTripper) http.RoundTripper { return tolerant{rt} }

type tolerant struct{ over http.RoundTripper }

// RoundTrip is that of rt with the answer corrected.
func (t tolerant) RoundTrip(r *http.Request) (*http.Response, error) {
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
	// What is left of the body follows: its end, its error, or the rest of an answer
	// over the bound.
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), body), body}
	return answer, nil
}

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
	if out, err := json.Marshal(fields); changed && err == nil {
		return out
	}
	return answer
}

// wholeSeconds rounds a fraction down, to one second at least. ok is false for whole
// numbers and for what is no lifetime.
func wholeSeconds(raw json.RawMessage) (seconds json.RawMessage, ok bool) {
	var n json.Number // also takes numbers in quotes
	if json.Unmarshal(raw, &n) != nil {
		return nil, false
	}
	_, notWhole := n.Int64()
	f, err := n.Float64()
	if notWhole == nil || err != nil || f <= 0 {
		return nil, false
	}
	return strconv.AppendInt(nil, max(1, int64(min(f, math.MaxInt32))), 10), true
}
