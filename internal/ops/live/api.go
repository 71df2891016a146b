package live

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/datafly/bridge/internal/plaintext"
)

// detail is one event as the page opens it.
type detail struct {
	Mode    string   `json:"mode"`
	Event   Event    `json:"event"`
	Content *Content `json:"content,omitempty"` // ModeFull only
}

// serveEvents lists what is kept, newest first: q (type, name, message id,
// code, column, offset), status, type, name, topic, partition, limit.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit := maxEvents
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fail(w, http.StatusBadRequest, "limit is no number above 0")
			return
		}
		limit = min(n, maxEvents)
	}
	p.read() // in flight, or retrying
	all, _ := p.feed.Since(0, maxEvents+1)
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(b.ID, a.ID) })
	found := []Event{}
	for _, e := range all {
		if len(found) < limit && e.matches(q.Get) {
			found = append(found, e)
		}
	}
	writeJSON(w, http.StatusOK, passing{found})
}

func (e *Event) matches(want func(string) string) bool {
	for key, have := range map[string]string{
		"status": e.Status, "type": e.Type, "name": e.Name, "topic": e.Topic, "partition": strconv.Itoa(int(e.Partition)),
	} {
		if w := want(key); w != "" && !strings.EqualFold(w, have) {
			return false
		}
	}
	text := strings.ToLower(strings.Join([]string{e.Type, e.Name, e.MessageID, e.Code, e.Column, strconv.FormatInt(e.Offset, 10)}, "\n"))
	return strings.Contains(text, strings.ToLower(want("q")))
}

func (p *Page) serveEvent(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusNotFound, "an event is named by its number")
		return
	}
	e, open, ok := p.feed.Get(id)
	if !ok {
		fail(w, http.StatusNotFound, "the event has made way for newer ones")
		return
	}
	d := detail{Mode: p.cfg.Mode, Event: e}
	if p.cfg.Mode == ModeFull && open != nil {
		// An event may take a hundred megabytes for a moment, if it is made for it.
		select {
		case p.opening <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		c := p.alone(open)
		d.Content = &c
	}
	writeJSON(w, http.StatusOK, d)
}

// alone gives the slot of opening back, also where open panics.
func (p *Page) alone(open func() Content) Content {
	defer func() { <-p.opening }()
	return open()
}

// serveStatus answers what /status does, to who is logged in here: a browser
// sends the session to this page alone.
func (p *Page) serveStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, p.source())
}

// serveConfig shows the effective configuration, which its maker has redacted.
func (p *Page) serveConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"config": p.source().Config})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer could not be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(plaintext.AppendVisible(nil, text), '\n')) // a peer that has gone cannot be told
}

// fail answers with one sentence for people in a form for machines.
func fail(w http.ResponseWriter, status int, why string) {
	writeJSON(w, status, map[string]string{"error": why})
}
