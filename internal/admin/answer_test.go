package admin

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"unicode/utf8"
)

// An event is any bytes; the answer that holds it is JSON.
func TestAnswersAreJSON(t *testing.T) {
	for _, event := range []string{"\"\xff\"", "{\"\xc3\":\"\xe2\x28\xa1\"}", "\"\u200b\U000e0001\"", "\"\xed\xa0\x80\""} {
		w := httptest.NewRecorder()
		new(API).write(&recorder{ResponseWriter: w}, 200, map[string]any{"event": json.RawMessage(event)})
		if got := w.Body.Bytes(); !json.Valid(got) || !utf8.Valid(got) {
			t.Errorf("%q: got %q", event, got)
		}
	}
}
