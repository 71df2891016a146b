package live

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// serveEvents lists the events of the log, newest first. Parameters: q (in type,
// name, message id, code, column, offset), status, type, name, topic, partition,
// limit.
func (p *Page) serveEvents(v *view, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit := maxEvents
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fail(w, http.StatusBadRequest, "limit is not a number above 0")
			return
		}
		limit = min(n, maxEvents)
	}
	p.read(v) // updates events in flight to retrying
	all, _ := v.events.Since(0, maxEvents+1)
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(b.ID, a.ID) })
	found := []Event{}
	for _, e := range all {
		if len(found) < limit && e.matches(q.Get) {
			found = append(found, e)
		}
	}
	writeJSON(w, http.StatusOK, eventsMessage{found})
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

// detail is one event with its content.
type detail struct {
	Mode    string   `json:"mode"`
	Event   Event    `json:"event"`
	Content *Content `json:"content,omitempty"` // ModeFull only
}

func (p *Page) serveEvent(v *view, w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusNotFound, "the id of an event is a number")
		return
	}
	e, open, ok := v.events.Get(id)
	p.showEvent(w, r, e, open, ok)
}

// serveEventAt serves the event of a partition and an offset. Parameters: topic, where
// there are several, and index, its number in the record.
func (p *Page) serveEventAt(v *view, w http.ResponseWriter, r *http.Request) {
	partition, err := strconv.ParseInt(r.PathValue("partition"), 10, 32)
	offset, err2 := strconv.ParseInt(r.PathValue("offset"), 10, 64)
	index, err3 := strconv.Atoi(cmp.Or(r.URL.Query().Get("index"), "0"))
	if err != nil || err2 != nil || err3 != nil {
		fail(w, http.StatusNotFound, "an event is named by the numbers of its partition and its offset")
		return
	}
	p.read(v) // updates events in flight to retrying
	e, open, ok := v.events.At(r.URL.Query().Get("topic"), int32(partition), offset, index)
	p.showEvent(w, r, e, open, ok)
}

func (p *Page) showEvent(w http.ResponseWriter, r *http.Request, e Event, open func() Content, ok bool) {
	if !ok {
		fail(w, http.StatusNotFound, "the event is not in the sample of this member, or was evicted by newer ones")
		return
	}
	d := detail{Mode: p.cfg.Mode, Event: e}
	if p.cfg.Mode == ModeFull && open != nil {
		// An extreme event may need a hundred megabytes for a moment.
		select {
		case p.opening <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		c := func() Content {
			defer func() { <-p.opening }() // also if open panics
			return open()
		}()
		d.Content = &c
	}
	writeJSON(w, http.StatusOK, d)
}

// serveStatus serves the JSON of /status to viewers who are logged in: a browser
// sends its session to this page only.
func (p *Page) serveStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, p.source())
}

// serveConfig shows the effective configuration, which the source has redacted, and what
// this member does with it.
func (p *Page) serveConfig(v *view, w http.ResponseWriter, _ *http.Request) {
	all := p.source()
	only, _ := all.Only(v.name)
	out := map[string]any{"config": nil, "version": all.Version, "started": all.Started, "time": all.Time, "reload": all.Reload, "buffered_limit_bytes": all.BufferedLimit}
	if len(only.Integrations) == 1 {
		i := only.Integrations[0]
		out["config"], i.Config, i.Partitions, i.History = i.Config, nil, nil, nil
		out["status"] = i
	}
	writeJSON(w, http.StatusOK, out)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encoded(v)) // fails if the peer has disconnected
}

// fail responds with one sentence for people, in JSON for programs.
func fail(w http.ResponseWriter, status int, why string) {
	writeJSON(w, status, map[string]string{"error": why})
}
