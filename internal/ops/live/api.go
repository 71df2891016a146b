package live

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
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
	if !ok {
		fail(w, http.StatusNotFound, "the event was evicted by newer ones")
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

// serveGroup shows an integration over all members of its group.
func (p *Page) serveGroup(v *view, w http.ResponseWriter, r *http.Request) {
	if p.cfg.Group == nil {
		fail(w, http.StatusNotFound, "this process does not look the group up")
		return
	}
	only, _ := p.cfg.Group(r.Context()).Only(v.name)
	writeJSON(w, http.StatusOK, only)
}

// serveConfig shows the effective configuration, which the source has redacted.
func (p *Page) serveConfig(v *view, w http.ResponseWriter, _ *http.Request) {
	only, _ := p.source().Only(v.name)
	var config any
	if len(only.Integrations) == 1 {
		config = only.Integrations[0].Config
	}
	writeJSON(w, http.StatusOK, map[string]any{"config": config})
}

// DeadLetters reads the dead-letter topics.
type DeadLetters interface {
	// Newest returns up to max of the newest dead letters, newest first, with their
	// content if content is true. It writes nothing.
	Newest(ctx context.Context, max int, content bool) ([]DeadLetter, error)
	// DryRun maps up to max of the newest dead letters with the present rules. It
	// writes nothing.
	DryRun(ctx context.Context, max int) (DryRun, error)
}

// DeadLetter is one dead letter.
type DeadLetter struct {
	Topic     string    `json:"topic"` // the dead-letter topic
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Source    string    `json:"source"` // topic/partition/offset of the event
	Events    string    `json:"events"` // which of the record's events failed: "0", "1,4"
	Code      string    `json:"code"`
	Column    string    `json:"column,omitempty"`
	Meaning   string    `json:"meaning,omitempty"`
	Reason    string    `json:"reason,omitempty"`   // ModeFull only
	Attempts  int       `json:"attempts,omitempty"` // times it was dead-lettered
	FailedAt  time.Time `json:"failed_at,omitzero"`
	Type      string    `json:"type,omitempty"`
	Name      string    `json:"name,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Size      int       `json:"size"`
	Value     string    `json:"value,omitempty"` // ModeFull only
}

// DryRun is the outcome of a redrive as a dry run.
type DryRun struct {
	DeadLetters int             `json:"dead_letters"` // that were read
	Events      int             `json:"events"`       // of them, that had failed
	Rows        int             `json:"rows"`         // that would be delivered
	Still       []RejectedAgain `json:"still"`        // that would be rejected again
	Dropped     int             `json:"dropped"`      // that would be filtered
	Damaged     int             `json:"damaged"`      // dead letters that cannot be restored
}

// RejectedAgain counts events that would be rejected again.
type RejectedAgain struct {
	Code    string `json:"code"`
	Column  string `json:"column,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Events  int    `json:"events"`
}

// deadLetters returns what reads the dead letters of an integration; nil without.
func (p *Page) deadLetters(v *view) DeadLetters {
	if p.cfg.DeadLetters == nil {
		return nil
	}
	return p.cfg.DeadLetters(v.name)
}

const (
	maxDeadLetters     = 100
	maxDryRun          = 500
	deadLettersTimeout = 20 * time.Second // below the server's write timeout
)

func (p *Page) serveDeadLetters(v *view, w http.ResponseWriter, r *http.Request) {
	p.readDeadLetters(v, w, r, func(ctx context.Context, from DeadLetters) (any, error) {
		full := p.cfg.Mode == ModeFull
		found, err := from.Newest(ctx, maxDeadLetters, full)
		for i := range found {
			if !full {
				found[i].Reason, found[i].Value = "", ""
			}
		}
		if found == nil {
			found = []DeadLetter{}
		}
		return map[string]any{"mode": p.cfg.Mode, "dead_letters": found}, err
	})
}

func (p *Page) serveDryRun(v *view, w http.ResponseWriter, r *http.Request) {
	p.readDeadLetters(v, w, r, func(ctx context.Context, from DeadLetters) (any, error) { return from.DryRun(ctx, maxDryRun) })
}

// readDeadLetters serves one request at a time, since each costs a connection and a
// fetch.
func (p *Page) readDeadLetters(v *view, w http.ResponseWriter, r *http.Request, read func(context.Context, DeadLetters) (any, error)) {
	from := p.deadLetters(v)
	if from == nil {
		fail(w, http.StatusNotFound, "there is no dead-letter topic: rejects.policy is not dead_letter")
		return
	}
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	default:
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusServiceUnavailable, "the dead letters are being read for another request; try again in a moment")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deadLettersTimeout)
	defer cancel()
	defer context.AfterFunc(p.stopped, cancel)()
	answer, err := read(ctx, from)
	if err != nil {
		fail(w, http.StatusBadGateway, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, answer)
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
