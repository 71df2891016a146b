package live

import (
	"context"
	"net/http"
	"time"
)

// Letters looks into the dead-letter topics.
type Letters interface {
	// Newest returns up to max of the newest dead letters, newest first, with
	// their content where content is true. It writes nothing.
	Newest(ctx context.Context, max int, content bool) ([]Letter, error)
	// Trial maps up to max of the newest dead letters by the rules of now and
	// says what would become of them. It writes nothing.
	Trial(ctx context.Context, max int) (Trial, error)
}

// Letter is one dead letter.
type Letter struct {
	Topic     string    `json:"topic"` // the dead-letter topic
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Source    string    `json:"source"` // topic/partition/offset of the event
	Events    string    `json:"events"` // which of the record's events failed: "0", "1,4"
	Code      string    `json:"code"`
	Column    string    `json:"column,omitempty"`
	Meaning   string    `json:"meaning,omitempty"`
	Reason    string    `json:"reason,omitempty"`   // ModeFull only
	Attempts  int       `json:"attempts,omitempty"` // times it was given up
	FailedAt  time.Time `json:"failed_at,omitzero"`
	Type      string    `json:"type,omitempty"`
	Name      string    `json:"name,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Size      int       `json:"size"`
	Value     string    `json:"value,omitempty"` // ModeFull only
}

// Trial is the outcome of a redrive that only pretends.
type Trial struct {
	Letters int         `json:"letters"` // looked at
	Events  int         `json:"events"`  // in them, that had failed
	Rows    int         `json:"rows"`    // would be rows now
	Still   []TrialCode `json:"still"`   // would be rejected again
	Dropped int         `json:"dropped"` // would be filtered
	Faulty  int         `json:"faulty"`  // letters that cannot be mapped as they were
}

// TrialCode counts events that would be rejected again.
type TrialCode struct {
	Code    string `json:"code"`
	Column  string `json:"column,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Events  int    `json:"events"`
}

const (
	maxLetters     = 100
	maxTrial       = 500
	lettersTimeout = 20 * time.Second // below the server's bound on an answer
)

type lettersAnswer struct {
	Mode    string   `json:"mode"`
	Letters []Letter `json:"letters"`
}

// withLetters lets one request at a time read the topic: it costs a connection
// and a fetch.
func (p *Page) withLetters(w http.ResponseWriter, r *http.Request, read func(ctx context.Context) (any, error)) {
	if p.cfg.Letters == nil {
		fail(w, http.StatusNotFound, "rejects are not kept in a topic; rejects.policy says what becomes of them")
		return
	}
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	default:
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusServiceUnavailable, "the dead letters are being read for somebody else; try again in a moment")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lettersTimeout)
	defer cancel()
	stop := context.AfterFunc(p.stopped, cancel)
	defer stop()
	answer, err := read(ctx)
	if err != nil {
		fail(w, http.StatusBadGateway, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (p *Page) serveLetters(w http.ResponseWriter, r *http.Request) {
	p.withLetters(w, r, func(ctx context.Context) (any, error) {
		full := p.cfg.Mode == ModeFull
		found, err := p.cfg.Letters.Newest(ctx, maxLetters, full)
		for i := range found {
			if !full {
				found[i].Reason, found[i].Value = "", ""
			}
		}
		if found == nil {
			found = []Letter{}
		}
		return lettersAnswer{p.cfg.Mode, found}, err
	})
}

func (p *Page) serveTrial(w http.ResponseWriter, r *http.Request) {
	p.withLetters(w, r, func(ctx context.Context) (any, error) { return p.cfg.Letters.Trial(ctx, maxTrial) })
}
